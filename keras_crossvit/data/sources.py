"""Where images come from: a TensorFlow dataset, or a folder of class folders."""

import collections.abc
import dataclasses
import os
import pathlib

import tensorflow as tf

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
_VALIDATION = ("validation", "val", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Args:
        examples: `tf.data.Dataset` of `(name, content, label)`, in a fixed order: a string
            that names the image, a string from which `read` makes the bytes of the image
            file, and an int64.
        size: Number of images.
        read: Graph function from `content` to the encoded image.
        light: Whether `content` is small (a path), so that all of it can be shuffled.
    """

    examples: tf.data.Dataset
    size: int
    read: collections.abc.Callable = tf.identity
    light: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of labelled images.

    Args:
        name: What the user called it.
        class_names: The classes' names, in the order of the labels.
        train: The split to train on.
        validation: The split to validate on.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split


def open_source(
    dataset: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
) -> Source:
    """Opens a set of labelled images.

    Args:
        dataset: The name of a TensorFlow dataset with features `image` and `label`
            ("digits", "imagenet2012", "oxford_iiit_pet", ...), or "folder:PATH", where PATH
            holds `train/CLASS/*` and `validation/CLASS/*`.
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.
        train_split: Split or folder to train on; TensorFlow datasets take slices as well,
            "train[:90%]".
        validation_split: Split or folder to validate on; `None` for the first of
            "validation", "val" and "test" that there is.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the data set has no such features, splits or images.
        FileNotFoundError: If the folder does not exist.
    """
    if dataset.startswith("folder:"):
        root = pathlib.Path(dataset.removeprefix("folder:")).expanduser()
        return _open_folder(dataset, root, train_split, validation_split)
    return _open_tfds(dataset, data_dir, train_split, validation_split)


def _open_tfds(name, data_dir, train_split, validation_split):
    import tensorflow_datasets as tfds

    if name == "digits":
        import keras_crossvit.data.digits  # noqa: F401  (registers the name)

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            '`dataset` must be the name of a TensorFlow dataset or "folder:PATH". '
            f"Received: dataset={name!r}"
        ) from error
    builder.download_and_prepare()
    info = builder.info
    if not {"image", "label"} <= set(info.features):
        raise ValueError(
            "`dataset` must have the features `image` and `label`. "
            f"Received: {name} with {', '.join(info.features)}"
        )
    train_split, validation_split = _split_names(name, info.splits, train_split, validation_split)

    def split(key):
        # Encoded, so that only the crop that is used has to be decoded.
        examples = builder.as_dataset(split=key, decoders={"image": tfds.decode.SkipDecoding()})

        def row(number, x):
            return tf.strings.format(f"{name} {key} {{}}", number), x["image"], x["label"]

        return Split(examples.enumerate().map(row), info.splits[key].num_examples)

    names = tuple(info.features["label"].names)
    return Source(name, names, split(train_split), split(validation_split))


def _split_names(dataset, there, train, validation):
    """The names of both splits, each known to exist."""
    if validation is None:
        validation = next((name for name in _VALIDATION if name in there), "validation")
    for argument, name in (("train_split", train), ("validation_split", validation)):
        if name.partition("[")[0] not in there:
            raise ValueError(
                f"`{argument}` must name a split of the dataset {dataset}: {', '.join(there)}, "
                'or, of a TensorFlow dataset, a part of one, as in "train[90%:]". '
                f"Received: {argument}={name!r}"
            )
    return train, validation


def _open_folder(dataset, root, train_split, validation_split):
    if not root.is_dir():
        raise FileNotFoundError(
            f"`dataset` must name an existing folder. Received: dataset={dataset!r}"
        )
    there = sorted(path.name for path in root.iterdir() if path.is_dir())
    train_split, validation_split = _split_names(dataset, there, train_split, validation_split)
    train, validation = root / train_split, root / validation_split
    names = tuple(sorted(path.name for path in train.iterdir() if path.is_dir()))
    return Source(dataset, names, _folder_split(train, names), _folder_split(validation, names))


def _folder_split(folder, class_names):
    unknown = {path.name for path in folder.iterdir() if path.is_dir()} - set(class_names)
    if unknown:
        raise ValueError(
            f"The classes of {folder} must be those of the folder to train on. "
            f"Received also: {', '.join(sorted(unknown))}"
        )
    paths, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(
            str(path)
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if not found:
            raise ValueError(
                f"Each class needs at least one image ({', '.join(IMAGE_SUFFIXES)}): put some "
                f"there, or remove the folder. Received: none in {folder / name}"
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"{folder} must hold a folder per class. Received: none")
    rows = (paths, paths, tf.constant(labels, tf.int64))
    return Split(tf.data.Dataset.from_tensor_slices(rows), len(paths), tf.io.read_file, light=True)
