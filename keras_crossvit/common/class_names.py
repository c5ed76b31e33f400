"""Names of classes that tell them apart."""

import collections
from collections.abc import Sequence


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that occur more than once with their numbers: "crane (134)".

    ImageNet has two such pairs: a crane that is a bird and one that is a machine, and maillots.
    """
    times = collections.Counter(names)
    return tuple(f"{x} ({n})" if times[x] > 1 else x for n, x in enumerate(names))
