"""Where pictures come from: a TensorFlow dataset, or a folder of class folders."""

import dataclasses
import pathlib

import tensorflow as tf

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
_VALIDATION = ("validation", "val", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Args:
        examples: `tf.data.Dataset` of `(encoded picture: string, label: int64)`, in a fixed
            order.
        size: Number of pictures.
    """

    examples: tf.data.Dataset
    size: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A labelled set of pictures.

    Args:
        name: What the user called it.
        class_names: The classes' names, in the order of the labels.
        train: The split to train on.
        validation: The split to validate on.
    """

    name: str
    class_names: tuple
    train: Split
    validation: Split


def open_source(dataset, data_dir=None):
    """Opens a set of pictures.

    Args:
        dataset: The name of a TensorFlow dataset with features `image` and `label`
            ("digits", "imagenet2012", "oxford_iiit_pet", ...), or "folder:PATH", where PATH
            holds `train/CLASS/*` and `validation/CLASS/*` (`val` and `test` are also known).
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the data set has no such features, splits or pictures.
        FileNotFoundError: If the folder does not exist.
    """
    if dataset.startswith("folder:"):
        return _open_folder(dataset, pathlib.Path(dataset.removeprefix("folder:")).expanduser())
    return _open_tfds(dataset, data_dir)


def _open_tfds(name, data_dir):
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
    if not {"image", "label"} <= set(builder.info.features):
        raise ValueError(
            "`dataset` must have the features `image` and `label`. "
            f"Received: {name} with {', '.join(builder.info.features)}"
        )
    validation = next((split for split in _VALIDATION if split in builder.info.splits), None)
    if "train" not in builder.info.splits or validation is None:
        raise ValueError(
            f"`dataset` must have the splits train and one of {', '.join(_VALIDATION)}. "
            f"Received: {name} with {', '.join(builder.info.splits)}"
        )

    def split(key):
        # Encoded, so that only the crop that is used has to be decoded.
        examples = builder.as_dataset(split=key, decoders={"image": tfds.decode.SkipDecoding()})
        pairs = examples.map(lambda x: (x["image"], x["label"]))
        return Split(pairs, builder.info.splits[key].num_examples)

    names = tuple(builder.info.features["label"].names)
    return Source(name, names, split("train"), split(validation))


def _open_folder(dataset, root):
    if not root.is_dir():
        raise FileNotFoundError(
            f"`dataset` must name an existing folder. Received: dataset={dataset!r}"
        )
    validation = next((name for name in _VALIDATION if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or validation is None:
        raise ValueError(
            f"`dataset` must hold the folders train and one of {', '.join(_VALIDATION)}, each "
            f"with a folder per class. Received: dataset={dataset!r} with "
            f"{', '.join(sorted(path.name for path in root.iterdir()))}"
        )
    names = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))
    return Source(
        dataset,
        names,
        _folder_split(root / "train", names),
        _folder_split(root / validation, names),
    )


def _folder_split(folder, class_names):
    unknown = {path.name for path in folder.iterdir() if path.is_dir()} - set(class_names)
    if unknown:
        raise ValueError(
            f"The classes of {folder} must be those of the folder train. "
            f"Received also: {', '.join(sorted(unknown))}"
        )
    paths, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(
            str(path)
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in PICTURES and path.is_file()
        )
        if not found:
            raise ValueError(
                f"Each class needs at least one picture ({', '.join(PICTURES)}). "
                f"Received: none in {folder / name}"
            )
        paths += found
        labels += [label] * len(found)
    examples = tf.data.Dataset.from_tensor_slices((paths, tf.constant(labels, tf.int64)))
    return Split(examples.map(lambda path, label: (tf.io.read_file(path), label)), len(paths))
