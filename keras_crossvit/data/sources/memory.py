"""Images that are already in memory."""

import os
from collections.abc import Sequence

import numpy as np

from keras_crossvit.data.sources.splits import Split


class MemorySplit(Split):
    """Images that are in memory already.

    Args:
        images: The encoded image files.
        labels: `(N,)` integers, or `(N, classes)` of zeros and ones.
        names: What the images are called in messages, strings or paths; `None` for "image 0" and
            so on. A share is held out by these names alone; the processes of a run compare the
            names and the labels.

    Raises:
        ValueError: If their numbers differ, one is of another kind, or an image has no label.
    """

    knows_labels = True

    def __init__(
        self,
        images: Sequence[bytes],
        labels: Sequence | np.ndarray,
        names: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        self._labels, self._images = np.asarray(labels), [*images]
        numbered = (f"image {row}" for row in range(len(self._images)))
        self._names: list[str | os.PathLike[str]] = [*(numbered if names is None else names)]
        lengths = len(self._images), len(self._labels), len(self._names)
        if len(set(lengths)) > 1:
            raise ValueError(
                "`images`, `labels` and `names` must have the same length. "
                f"Received: {lengths[0]} images, {lengths[1]} labels, {lengths[2]} names"
            )
        for image in self._images:
            if not isinstance(image, bytes):
                raise ValueError(
                    "`images` must be encoded image files, as bytes. "
                    f"Received also: {type(image).__name__}"
                )
        for name in self._names:
            if not isinstance(name, (str, os.PathLike)):
                raise ValueError(f"`names` must be strings or paths. Received also: {name!r}")
        one_each = self._labels.ndim == 1 and self._labels.dtype.kind not in "biu"
        if self._labels.size and (one_each or self._labels.dtype.kind not in "biuf"):
            raise ValueError(
                "`labels` must be integers, or rows of zeros and ones. "
                f"Received: an array of {self._labels.dtype}"
            )
        other = self._labels[(self._labels != 0) & (self._labels != 1)]
        if self._labels.ndim > 1 and other.size:
            raise ValueError(
                f"`labels` must be integers, or rows of zeros and ones. Received also: {other[0]}"
            )
        if self._labels.ndim > 1 and not self._labels.any(axis=1).all():
            raise ValueError(
                "`labels` must have a 1 in each row: images without a label can have a class of "
                f"their own. Received: none in row {self._labels.any(axis=1).argmin()}"
            )
        super().__init__(len(self._images), self._labels.shape[1:])

    def name(self, index: int) -> str:
        return os.fspath(self._names[index])

    def load(self, index: int) -> tuple[bytes, object]:
        return self._images[index], self._labels[index]

    def labels(self) -> np.ndarray:
        return self._labels.astype("float32" if self.label_shape else "int64")
