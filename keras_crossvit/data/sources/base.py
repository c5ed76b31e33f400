"""What every source of images is made of: splits with a size and access by number."""

import abc
import collections.abc
import dataclasses
import difflib
import functools
import logging
import os
import re
import unicodedata
import zlib
from typing import NamedTuple

import numpy as np

from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.registry import Registry
from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.held_out import hold_out_rows

# Functions from a `Request` to a `Source`, by the word before the colon of `--dataset`.
SOURCES = Registry("source")

# What a TensorFlow dataset can be called: [namespace:]name[/config][:version][/arguments].
_TFDS_NAME = re.compile(r"([\w-]+:)?\w+(/[\w+.-]+)?(:[\d*.]+)?(/\w+=.*)?")
_WORDNET_ID = re.compile(r"n\d{8}")  # ImageNet's classes are numbered in their order
_PATH = re.compile(r"^[.~]|[/\\]")

# Names of splits to validate on; the first that a dataset has is taken unless one is chosen.
VALIDATION = ("validation", "val", "valid", "dev", "test")
_LABELS_AT_A_TIME = 256
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

        Where they are stored with the images, as in a TensorFlow dataset, all images are read.
        """
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


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of labelled images.

    Args:
        name: What the user called it.
        class_names: The classes' names, in the order of the labels.
        train: The `Split` to train on.
        validation: The `Split` to validate on.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split

    @functools.cached_property
    def digest(self) -> list[int]:
        """That of each split."""
        return [self.train.digest(), self.validation.digest()]

    def with_classes(self, names: collections.abc.Sequence[str] | None) -> "Source":
        """The source to validate on, with the labels of a model that has these classes.

        Classes are matched by name. If no name matches, equally many classes are taken to be the
        same in their order, and the log says so (except for ImageNet, whose folders have other
        names than its classes). A name that the model has twice carries its number: "crane (134)".

        Args:
            names: The model's class names; `None` leaves the source as it is.

        Raises:
            ValueError: If some classes are the model's and others are not, or if none are and
                their number differs.
        """
        if names is None or tuple(names) == self.class_names:
            return self
        own = distinct_names(names)
        strangers = set(self.class_names) - set(own)
        if strangers == set(self.class_names) and len(names) == len(self.class_names):
            if not all(map(_WORDNET_ID.fullmatch, self.class_names)):
                _logger.warning(
                    "%s has other class names than the model, which are taken in their order: "
                    "%s as %s, and so on",
                    *(self.name, self.class_names[0], own[0]),
                )
            return self
        if strangers:
            doubles = [name for name, plain in zip(own, names, strict=True) if plain in strangers]
            raise ValueError(
                f"`dataset` must have classes of the model, {', '.join((doubles or own)[:10])}"
                f"{', ...' if len(names) > 10 else ''}. Received: {self.name}, with "
                f"{', '.join(sorted(strangers)[:10])}{unicode_hint(strangers, own)}"
            )
        number = {name: index for index, name in enumerate(own)}
        numbers = np.array([number[name] for name in self.class_names])
        held_out = RenumberedSplit(self.validation, numbers, len(names))
        return dataclasses.replace(self, class_names=tuple(names), validation=held_out)


@dataclasses.dataclass(frozen=True)
class Request:
    """What `open_source` was asked for, as a function in `SOURCES` gets it.

    Args:
        dataset: The whole argument `dataset`.
        location: `dataset` without the word before the colon that chose the source.
        data_dir: As in `open_source`.
        train_split: As in `open_source`.
        validation_split: As in `open_source`.
    """

    dataset: str
    location: str
    data_dir: str | os.PathLike | None
    train_split: str | None
    validation_split: str | float | None

    def choose_splits(
        self, there: collections.abc.Collection[str], parts: bool = False
    ) -> tuple[str, str | None]:
        """Names of the splits to train and to validate on.

        Args:
            there: The names of all splits.
            parts: Whether parts of a split have names, too, such as "train[90%:]".

        Returns:
            Both names, each known to exist; the second is `None` if a share of the first is
            held out.

        Raises:
            ValueError: If there is no such split.
        """
        # A split may be called 2024, which JSON takes for a number.
        train, validation = (
            str(name) if isinstance(name, int) and str(name) in there else name
            for name in (self.train_split, self.validation_split)
        )
        if validation is None:
            validation = next((name for name in VALIDATION if name in there), "validation")
        alone = train is None and isinstance(validation, str)
        if alone:
            train = validation
        asked = [("train_split", train), ("validation_split", validation)]
        for argument, name in asked[1:] if alone else asked:
            if isinstance(name, str):
                known = name in there
                if parts:
                    terms = [term.partition("[")[0].strip() for term in name.split("+")]
                    known = all(term in there or term == "all" for term in terms)
            else:  # a share to validate on, which is checked where it is used
                known = argument == "validation_split"
            if not known:
                raise ValueError(
                    f"`{argument}` must name a split of the dataset {self.dataset}: "
                    f"{', '.join(there) or 'none'}{self._more_than_names(argument, parts)}. "
                    f"Received: {argument}={name!r}"
                )
        return str(train), validation if isinstance(validation, str) else None

    def _more_than_names(self, argument, parts):
        """What a message about a split says besides the names of the existing ones."""
        more = ""
        if self.dataset.startswith("folder:"):
            more = (
                "; its images belong in folders PATH/SPLIT/CLASS, such as PATH/train/cat, or "
                "PATH/CLASS, which make one split, 'train'"
            )
        elif parts:
            more = ', or a part of one or a sum, as in "train[90%:]" and "train+test"'
        if argument == "validation_split":
            more += "; or be a share of the training split, as in 0.2"
        return more

    def log_unread(
        self, there: collections.abc.Mapping[str, str], splits: tuple[str, str | None]
    ) -> None:
        """Logs which splits are not read in a run, so that they are not silently left out.

        Args:
            there: What the log calls each split, by the split's name.
            splits: What `choose_splits` returned.
        """
        unread = [said for name, said in there.items() if name not in splits]
        if self.train_split is not None and unread:  # otherwise only one was asked for
            _logger.warning("%s: splits that are not read: %s", self.dataset, ", ".join(unread))

    def log_shared(self, splits: tuple[str, str | None], count: int) -> None:
        """Logs how many images of the split to validate on are trained on, unless there are none.

        Args:
            splits: What `choose_splits` returned.
            count: The number of these images.
        """
        if self.train_split is not None and count:  # otherwise nothing is trained on
            _logger.warning(
                "%s: %d images of %r, to validate on, are also in %r, to train on: their accuracy "
                "says little about other images",
                *(self.dataset, count, splits[1], splits[0]),
            )

    def source(
        self,
        class_names: collections.abc.Sequence[str],
        splits: tuple[str, str | None],
        open_split: collections.abc.Callable[[str], Split],
    ) -> Source:
        """The `Source`.

        Args:
            class_names: The classes' names, in the order of the labels.
            splits: What `choose_splits` returned.
            open_split: Function from the name of a split to the `Split`.
        """
        train, validation = splits
        whole = open_split(train)
        if validation == train:
            self.log_shared(splits, whole.size)
        if validation is not None:
            return Source(self.dataset, tuple(class_names), whole, open_split(validation))
        names = map(whole.name, range(whole.size))
        rows = hold_out_rows(names, whole.labels(), self.validation_split, whole.root)
        parts = (PartOfSplit(whole, part) for part in rows)
        return Source(self.dataset, tuple(class_names), *parts)


def unicode_hint(
    unknown: collections.abc.Iterable[str], known: collections.abc.Iterable[str]
) -> str:
    """The end of a message about unknown names if one of them looks like a known one."""
    forms = {unicodedata.normalize("NFC", name) for name in known}
    if any(unicodedata.normalize("NFC", name) in forms for name in unknown):
        return " (the same letters in another Unicode form, as macOS writes them)"
    return ""


def is_tfds_name(dataset: str) -> bool:
    """Whether a TensorFlow dataset can have this name; a path rarely qualifies."""
    return _TFDS_NAME.fullmatch(dataset) is not None


def unknown_dataset(dataset: str) -> ValueError:
    """The error for an unknown `dataset`; it says what may have been meant."""
    prefixes = " or ".join(f'"{prefix}:..."' for prefix in SOURCES if prefix != "tfds")
    return ValueError(
        f"`dataset` must be the name of a TensorFlow dataset or {prefixes}. "
        f"Received: dataset={dataset!r}{_suggestion(dataset)}"
    )


def _suggestion(dataset):
    """The end of a message: `dataset` with the right word before the colon, or ""."""
    prefix, colon, location = dataset.partition(":")
    if colon and (closest := difflib.get_close_matches(prefix, SOURCES, n=1)):
        meant = f"{closest[0]}:{location}"
    elif dataset.lower().endswith(".csv"):
        meant = f"csv:{dataset}"
    elif os.path.isdir(dataset) or (not os.path.exists(dataset) and _PATH.search(dataset)):
        meant = f"folder:{dataset}"
    else:
        return ""
    return f". Did you mean {meant!r}?"
