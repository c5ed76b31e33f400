"""The order in which a run goes through a split: a permutation per epoch, from the seed."""

import functools
import threading

import numpy as np


def permutation(size: int, seed: int, number: int) -> np.ndarray:
    """The numbers 0 to `size - 1` in an order determined by `seed` and `number`.

    It sorts the raw numbers of a Philox generator that has these two as its key: NumPy promises
    the same ones in every version, unlike for `Generator.permutation`, and the orders of
    neighbouring keys have nothing in common.

    Args:
        size: Length of the permutation.
        seed: At least 0.
        number: Which of the seed's orders, from 0.

    Returns:
        int64 `(size,)`.
    """
    key = np.array([seed, number], "uint64")
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")


class EpochOrder:
    """Which image is in which row of a run.

    Every epoch has its own order. With `repeats` of n, an epoch takes the first 1/n of its
    order, each image n times in a row, as DeiT's `RASampler` does.

    Args:
        size: Number of images.
        rows: Rows per epoch.
        seed: At least 0.
        repeats: How many times in a row each image occurs, at least 1.
    """

    def __init__(self, size: int, rows: int, seed: int, repeats: int = 1) -> None:
        self._rows, self._repeats = rows, repeats
        # Two, because parts of an epoch and of the next are prepared at the same time.
        self._epoch = functools.lru_cache(2)(lambda epoch: permutation(size, seed, epoch))
        self._lock = threading.Lock()  # so that an order is computed once

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The images in these rows of the run, counted from its start; both int64 `(N,)`."""
        epochs, rows = np.divmod(numbers, self._rows)
        indices = np.empty_like(rows)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            with self._lock:
                order = self._epoch(int(epoch))
            indices[here] = order[rows[here] // self._repeats]
        return indices
