"""A fixed part of a split that is held out from training."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_crossvit.common.checks import plain


def hold_out_rows(
    names: Iterable[str], labels: np.ndarray, share: Any, root: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows into a part to train on and a part to validate on, stratified by class.

    Which rows of a class are held out follows from a hash of their names alone: if rows are added
    or removed, nearly all others stay where they were, so that a model is not validated on what
    it was trained on. Each class gives `share` of its rows, rounded so that all classes together
    give the share, too; its last row is always kept for training. Rows with the same name are
    never separated.

    Args:
        names: The rows' names; of a path, only the file and its folder below `root` count, or
            everything below it where two paths of a class have these in common.
        labels: int `(N,)`, or `(N, classes)` of zeros and ones: then a row counts towards the
            rarest of its classes.
        share: Share of the rows to hold out, in (0, 1).
        root: What the names begin with, as in `Split`.

    Returns:
        The numbers of both parts' rows, each in ascending order.

    Raises:
        ValueError: If `share` is outside its range, or a part would be empty.
    """
    share = plain(share)
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
    keys = _keys(names, classes, root)
    by_class = np.lexsort((keys, classes))
    within = np.arange(len(labels)) - np.repeat(ends - counts, counts)
    first_kept = keys[by_class][ends - counts + quotas]
    held_out = within < np.repeat(quotas, counts)
    held_out &= keys[by_class] != np.repeat(first_kept, counts)
    if not held_out.any():
        raise ValueError(
            "`validation_split` must be a share that holds out at least one image and leaves "
            f"one of each class. Received: validation_split={share!r} of {len(labels)} images"
        )
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


def _keys(names, classes, root):
    """A random-looking number for each row; `(N,)`.

    From the last two parts of what follows `root`, since folders may be moved; from all of it
    where a class has several with the same ones, such as "1/rgb/image.png" and "2/rgb/image.png".
    """
    below = (name.removeprefix(root).replace("\\", "/").strip("/") for name in names)
    hashes = ((_hash("/".join(path.rsplit("/", 2)[-2:])), _hash(path)) for path in below)
    short, long = np.fromiter(hashes, np.dtype(("uint64", 2)), len(classes)).T
    order = np.lexsort((long, short, classes))
    same = (np.diff(short[order]) == 0) & (np.diff(classes[order]) == 0)
    starts = np.flatnonzero(np.append(True, ~same)[: len(order)])
    sizes = np.diff(np.append(starts, len(order)))
    several = long[order][starts] != long[order][starts + sizes - 1]
    keys = np.empty_like(short)
    keys[order] = np.where(np.repeat(several, sizes), long[order], short[order])
    return keys


def _rarest(labels):
    """The rarest label of each row, -1 for a row without one; `(N,)`.

    A share could not be held out by whole sets of labels: most occur in a single row.
    """
    counts = np.where(labels > 0, labels.sum(axis=0), np.inf)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1)


def _hash(key):
    """A random-looking number for a text, the same on all systems."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
