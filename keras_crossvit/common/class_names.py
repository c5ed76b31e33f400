"""Class names that tell the classes apart."""

import collections
from collections.abc import Sequence


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that occur more than once get their numbers: "crane (134)".

    ImageNet has two such pairs: crane (the bird and the machine) and maillot.
    """
    times = collections.Counter(names)
    return tuple(f"{x} ({n})" if times[x] > 1 else x for n, x in enumerate(names))
