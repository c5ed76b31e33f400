"""What a source of images is, and what the functions that open one are given."""

import collections.abc
import dataclasses
import difflib
import functools
import logging
import os
import re
import unicodedata
from typing import Any

import numpy as np

from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.registry import Registry
from keras_crossvit.data.sources.held_out import hold_out_rows
from keras_crossvit.data.sources.splits import PartOfSplit, RenumberedSplit, Split

# Functions from a `Request` to a `Source`, by the word before the colon of `--dataset`.
SOURCES = Registry("source")

# What a TensorFlow dataset can be called: [namespace:]name[/config][:version][/arguments].
TFDS_NAME = re.compile(r"([\w-]+:)?\w+(/[\w+.-]+)?(:[\d*.]+)?(/\w+=.*)?")
_WORDNET_ID = re.compile(r"n\d{8}")  # ImageNet's classes are numbered in their order
_PATH = re.compile(r"^[.~]|[/\\]")

# Names of splits to validate on; the first that a dataset has is taken unless one is chosen.
VALIDATION = ("validation", "val", "valid", "dev", "test")

_logger = logging.getLogger("keras_crossvit.data")


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


def unknown_dataset(dataset: Any) -> ValueError:
    """The error for an unknown `dataset`; it says what may have been meant."""
    prefixes = " or ".join(f'"{prefix}:..."' for prefix in SOURCES if prefix != "tfds")
    return ValueError(
        f"`dataset` must be the name of a TensorFlow dataset or {prefixes}. "
        f"Received: dataset={dataset!r}{_suggestion(str(dataset))}"
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
