"""Splits of a data set: a size, and access to images by number."""

import abc
import collections.abc
import logging
import zlib
from typing import NamedTuple

import numpy as np

from keras_crossvit.data.sources import storage

_LABELS_AT_A_TIME = 256
_MANY_LABELS = 100_000  # take seconds to minutes to read
_NAMES = 1000  # of a split, in its digest

_logger = logging.getLogger("keras_crossvit.data")


class Examples(NamedTuple):
    """Some rows of a split.

    Args:
        names: What each image is called in messages. The name of one that could not be read
            says why.
        images: The encoded image files; empty bytes for one that could not be read.
        labels: int64 `(N,)`, or for a multi-label split float32 `(N, classes)` of zeros and
            ones; 0 for a row that could not be read.
    """

    names: list[str]
    images: list[bytes]
    labels: np.ndarray


class Split(abc.ABC):
    """One split of a data set: a size, and access to its images by number.

    A new kind of split defines `size`, `name(index)` and `load(index)`. `read` is called from
    several threads at the same time.

    Args:
        size: Number of images.
        label_shape: `()` for one label per image, `(classes,)` for any number of them.
        remote: Whether images take long to arrive, so that many are requested at a time.

    Attributes:
        root: What the images' names begin with and do not depend on: their folder, which may be
            moved, or a dataset's name as it was asked for.
        knows_labels: Whether `labels` reads no image.
    """

    root = ""
    knows_labels = False

    def __init__(self, size: int, label_shape: tuple[int, ...] = (), remote: bool = False) -> None:
        self.size = size
        self.label_shape = label_shape
        self.remote = remote

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What image `index` is called in messages."""

    @abc.abstractmethod
    def load(self, index: int) -> tuple[bytes, object]:
        """The encoded image `index` and its label, an integer or a row of zeros and ones.

        Raises:
            OSError: If it cannot be read; the message says why.
        """

    def read(self, indices: collections.abc.Iterable[int]) -> Examples:
        """The rows with these numbers, in their order, and no others."""
        numbers = [int(index) for index in indices]
        rows = storage.at_once(self._row, numbers) if self.remote else map(self._row, numbers)
        names, images, labels = zip(*rows, strict=True) if numbers else ((), (), ())
        values = np.asarray(labels, "float32" if self.label_shape else "int64")
        return Examples([*names], [*images], values.reshape(len(numbers), *self.label_shape))

    def _row(self, index):
        name = self.name(index)
        try:
            image, label = self.load(index)
            if not image:  # otherwise it would look like one that was not read
                raise OSError("the file is empty")
            return name, image, label
        except OSError as error:
            return f"{name} ({error.strerror or error})", b"", np.zeros(self.label_shape)

    def labels(self) -> np.ndarray:
        """The labels of all images, as in `Examples`.

        Where they are stored with the images, as in a TensorFlow dataset, all images are read,
        and the log says so if they are many.
        """
        if self.size >= _MANY_LABELS:
            _logger.warning(
                "%s: reading all %d images for the labels that are stored with them",
                self.root or type(self).__name__,
                self.size,
            )
        starts = range(0, self.size, _LABELS_AT_A_TIME)
        chunks = (range(start, min(start + _LABELS_AT_A_TIME, self.size)) for start in starts)
        empty = self.read([]).labels
        return np.concatenate([empty, *(self.read(chunk).labels for chunk in chunks)])

    def digest(self) -> int:
        """31 bits that tell other images, or another order, and other labels if they are known.

        The same wherever the images lie. Of many images, names from all over the split count:
        one file more or less moves all that come after it. No image is read, and of images
        with several labels only the names count.
        """
        rows = np.linspace(0, self.size - 1, min(self.size, _NAMES)).astype("int64")
        names = (self.name(int(row)).removeprefix(self.root).replace("\\", "/") for row in rows)
        digest = zlib.crc32("\n".join(names).encode("utf-8", "surrogatepass"))
        if self.knows_labels and not self.label_shape:
            digest = zlib.crc32(self.labels().tobytes(), digest)
        return digest >> 1  # since JAX truncates integers to 32 bits


class PartOfSplit(Split):
    """Some rows of another split, in the given order.

    Args:
        whole: A `Split`.
        rows: The numbers of the rows, int64 `(N,)`.
    """

    def __init__(self, whole: Split, rows: np.ndarray) -> None:
        super().__init__(len(rows), whole.label_shape, whole.remote)
        self._whole, self._rows = whole, rows
        self.root, self.knows_labels = whole.root, whole.knows_labels

    def name(self, index: int) -> str:
        return self._whole.name(int(self._rows[index]))

    def load(self, index: int) -> tuple[bytes, object]:
        return self._whole.load(int(self._rows[index]))

    def labels(self) -> np.ndarray:
        return self._whole.labels()[self._rows]


class RenumberedSplit(Split):
    """Another split with other numbers for its classes.

    Args:
        whole: A `Split`.
        numbers: The new number of each class, int `(old classes,)`.
        classes: Number of new classes.
    """

    def __init__(self, whole: Split, numbers: np.ndarray, classes: int) -> None:
        super().__init__(whole.size, (classes,) if whole.label_shape else (), whole.remote)
        self._whole, self._numbers = whole, numbers
        self.root, self.knows_labels = whole.root, whole.knows_labels

    def name(self, index: int) -> str:
        return self._whole.name(index)

    def load(self, index: int) -> tuple[bytes, object]:
        image, label = self._whole.load(index)
        return image, self._renumbered(np.asarray(label)[np.newaxis])[0]

    def read(self, indices: collections.abc.Iterable[int]) -> Examples:
        found = self._whole.read(indices)
        return Examples(found.names, found.images, self._renumbered(found.labels))

    def labels(self) -> np.ndarray:
        return self._renumbered(self._whole.labels())

    def _renumbered(self, labels):
        if not self.label_shape:
            # -1 means no label to tensorflow-datasets, but the last one to an array.
            return np.where(labels < 0, labels, self._numbers[labels])
        new = np.zeros((len(labels), *self.label_shape), labels.dtype)
        new[:, self._numbers] = labels
        return new
