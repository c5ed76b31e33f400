"""A fixed part of a split that is held out from training."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def hold_out_rows(
    names: Iterable[str], labels: np.ndarray, share: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows into a part to train on and a part to validate on, alike in their classes.

    Which rows of a class are held out follows from their names alone, by a hash: where rows are
    added or taken away, nearly all others stay where they were, so that a model is not validated
    on what it was trained on. Each class gives `share` of its rows, rounded so that all classes
    together give the share too; its last row is always kept for training.

    Args:
        names: The rows' names; of a path the file and its folder count.
        labels: int `(N,)`, or `(N, classes)` of zeros and ones: then a row counts to that class
            among its own which the fewest rows have.
        share: Share of the rows to hold out, in (0, 1).

    Returns:
        The numbers of both parts' rows, each in rising order.

    Raises:
        ValueError: If `share` is outside its range, or a part would be empty.
    """
    number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if not number or not 0 < share < 1:
        raise ValueError(
            "`validation_split` must be the name of a split, or a share between 0 and 1. "
            f"Received: validation_split={share!r}"
        )
    classes = _rarest(labels) if labels.ndim == 2 else labels
    _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    quotas = np.diff(np.rint(ends * share).astype("int64"), prepend=0)
    quotas = np.minimum(quotas, counts - 1)
    if not quotas.sum():
        raise ValueError(
            "`validation_split` must be a share that holds out at least one image and leaves "
            f"one of each class. Received: validation_split={share!r} of {len(labels)} images"
        )
    by_class = np.lexsort((np.fromiter(map(_hash, names), "uint64", len(labels)), classes))
    within = np.arange(len(labels)) - np.repeat(ends - counts, counts)
    held_out = within < np.repeat(quotas, counts)
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


def _rarest(labels):
    """The label of each row that the fewest rows have, -1 for a row without one; `(N,)`.

    By whole sets of labels a share could not be held out: most are those of a single row.
    """
    counts = np.where(labels > 0, labels.sum(axis=0), np.inf)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1)


def _hash(name):
    """A number that looks random, of the last two parts of a path: its folder may be moved."""
    key = "/".join(name.replace("\\", "/").rsplit("/", 2)[-2:])
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
