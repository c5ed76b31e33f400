"""A fixed part of a split that is held out from training."""

from typing import Any

import numpy as np

from keras_crossvit.data.order import permutation

_SEED = 0  # the same for every run, so that a later evaluation finds the same images held out


def hold_out_rows(labels: np.ndarray, share: Any) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows into a part to train on and a part to validate on, alike in their classes.

    The same labels are always divided alike. Each class gives `share` of its rows, rounded so
    that all classes together give the share too; its last row is always kept for training.

    Args:
        labels: int `(N,)`, or `(N, classes)` of zeros and ones: then the rows that have all
            their labels in common count as a class.
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
    _, classes, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    classes = classes.reshape(-1)  # NumPy 2.0 has another axis there
    ends = np.cumsum(counts)
    quotas = np.diff(np.rint(ends * share).astype("int64"), prepend=0)
    quotas = np.minimum(quotas, counts - 1)
    if not quotas.sum():
        raise ValueError(
            "`validation_split` must be a share that holds out at least one image and leaves "
            f"one of each class. Received: validation_split={share!r} of {len(labels)} images"
        )
    shuffled = permutation(len(labels), _SEED, 0)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    within = np.arange(len(labels)) - np.repeat(ends - counts, counts)
    held_out = within < np.repeat(quotas, counts)
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])
