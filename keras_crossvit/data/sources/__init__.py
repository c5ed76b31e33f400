"""Where images come from: a file for each kind of source, and the function that opens them all.

A new kind is a file in this folder, imported here: a subclass of `Split`, and a function from a
`Request` to a `Source`, registered in `SOURCES` under the word before the colon.
"""

import os

from keras_crossvit.data.sources import csv, folder, tfds  # noqa: F401  (they register)
from keras_crossvit.data.sources.base import (
    SOURCES,
    TFDS_NAME,
    Request,
    Source,
    unknown_dataset,
)
from keras_crossvit.data.sources.memory import MemorySplit
from keras_crossvit.data.sources.splits import Examples, Split

__all__ = ["SOURCES", "Examples", "MemorySplit", "Request", "Source", "Split", "open_source"]


def open_source(
    dataset: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str | None = "train",
    validation_split: str | float | None = None,
) -> Source:
    """Opens a set of labelled images.

    Args:
        dataset: The name of a TensorFlow dataset with features `image` and `label`
            ("digits", "imagenet2012", "oxford_iiit_pet", ...), "folder:PATH", where PATH
            holds `train/CLASS/*` and possibly `validation/CLASS/*`, or "csv:FILE", a table
            with the columns `path`, `label` or `labels`, and possibly `split`.
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.
        train_split: Split or folder to train on; TensorFlow datasets also take slices, such as
            "train[:90%]". `None`, for evaluation only, means the split to validate on.
        validation_split: Split or folder to validate on; `None` for the first of
            "validation", "val", "valid", "dev" and "test" that exists. A number in (0, 1)
            holds out that share of the split to train on, the same of each class, and always
            the same images.

    Returns:
        A `Source`, whose splits `train` and `validation` have a `size` and return any of their
        rows by number: `split.read([5, 0])`.

    Raises:
        ValueError: If there is no such dataset, it has no such features, splits or images, or a
            row of the table is wrong.
        FileNotFoundError: If the folder or the table does not exist.
    """
    if not isinstance(dataset, str):  # such as a `pathlib.Path`, which does not say what it holds
        raise unknown_dataset(dataset)
    prefix, colon, location = dataset.partition(":")
    if not colon or prefix not in SOURCES:  # a TensorFlow dataset: its version follows a colon
        if not TFDS_NAME.fullmatch(dataset):  # a path rarely qualifies
            raise unknown_dataset(dataset)
        prefix, location = "tfds", dataset
    if not location:
        raise ValueError(
            f"`dataset` must have a path after the colon. Received: dataset={dataset!r}"
        )
    request = Request(dataset, location, data_dir, train_split, validation_split)
    return SOURCES[prefix](request)
