"""Class names that tell the classes apart."""

import collections
from collections.abc import Sequence


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that occur more than once get their numbers: "crane (134)".

    ImageNet has two such pairs: crane (the bird and the machine) and maillot.
    """
    names = tuple(names)
    while len(times := collections.Counter(names)) < len(names):  # "a (1)" may be a name already
        names = tuple(f"{x} ({n})" if times[x] > 1 else x for n, x in enumerate(names))
    return names
