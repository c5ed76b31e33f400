"""TensorFlow datasets, `tfds:NAME` or `NAME` alone, as they are stored on disk."""

import bisect
import collections
import itertools
import os
from collections.abc import Sequence
from typing import Any

from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.base import SOURCES, Request, Source, unknown_dataset
from keras_crossvit.data.sources.splits import Split
from keras_crossvit.data.sources.tfrecord import index_shards, read_record


class _Examples(Split):
    """Records of a TensorFlow dataset, from which tensorflow-datasets makes the features."""

    def __init__(self, name: str, size: int, info: Any, remote: bool = False) -> None:
        import tensorflow_datasets as tfds

        super().__init__(size, remote=remote)
        self._name = name
        # The other features of the records are ignored.
        wanted = tfds.decode.PartialDecoding({"image": True, "label": True})
        self._features = wanted.extract_features(info.features)
        # Encoded, so that only the crop that is used has to be decoded.
        self._decoders = {"image": tfds.decode.SkipDecoding()}

    def name(self, index):
        return f"{self._name} {index}"

    def load(self, index):
        example = self._features.deserialize_example_np(
            self._record(index), decoders=self._decoders
        )
        return example["image"], example["label"]


class TFRecordExamples(_Examples):
    """A split of TFRecord shards, read by an index of their records.

    Args:
        name: What the split is called in messages.
        info: The `DatasetInfo`.
        instructions: tensorflow-datasets' `FileInstruction`s: which records of which shards.
    """

    def __init__(self, name: str, info: Any, instructions: Sequence[Any]) -> None:
        paths = [os.fspath(part.filename) for part in instructions]
        self._ends = [*itertools.accumulate(part.take for part in instructions)]
        size = sum(part.take for part in instructions)  # 0 for a part such as "train[:0%]"
        super().__init__(name, size, info, any(map(storage.is_remote, paths[:1])))
        self._first = [part.skip for part in instructions]
        counts = [part.examples_in_shard for part in instructions]
        self._shards = index_shards(paths, counts) if paths else []

    def _record(self, index):
        number = bisect.bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return read_record(self._shards[number], self._first[number] + index - start)


class RandomAccessExamples(_Examples):
    """A split in a file format that tensorflow-datasets reads by number, such as ArrayRecord.

    Args:
        name: What the split is called in messages.
        info: The `DatasetInfo`.
        records: The data source, of raw records.
    """

    def __init__(self, name: str, info: Any, records: Sequence[Any]) -> None:
        super().__init__(name, len(records), info)
        self._records = records

    def _record(self, index):
        try:
            return self._records[index]
        except (ValueError, RuntimeError, IndexError) as error:  # as array_record raises them
            raise OSError(str(error)) from error


@SOURCES.register("tfds")
def open_tfds(request: Request) -> Source:
    """Opens a TensorFlow dataset that has the features `image` and `label`."""
    import tensorflow_datasets as tfds

    name = request.location
    if name == "digits":
        import keras_crossvit.data.sources.digits  # noqa: F401  (registers the name)
    try:
        builder = _prepared(request)
    except FileExistsError:  # another process has prepared it in the meantime
        builder = _prepared(request)
    except tfds.core.DatasetNotFoundError as error:
        raise unknown_dataset(request.dataset) from error
    info = builder.info
    _check_features(name, info.features)
    splits = request.choose_splits(info.splits, parts=True)
    for argument, key in zip(("validation_split", "train_split"), reversed(splits), strict=True):
        _check_part(info, argument, key)
    if splits[1] not in (None, splits[0]):
        request.log_shared(splits, _shared(info, *splits))

    def open_split(key):
        split = _open_split(builder, f"{name} {key}", key)
        split.root = name
        return split

    return request.source(info.features["label"].names, splits, open_split)


def _prepared(request):
    """The builder of a dataset that lies on disk now, or an error that says what to download."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(request.location, data_dir=request.data_dir)
    try:
        builder.download_and_prepare()
    except AssertionError as error:  # how builders report missing files
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        folder = os.path.join(builder.data_dir_root, "downloads", "manual")
        raise ValueError(
            f"`dataset` must be downloaded by hand, to {folder}, or to downloads/manual in "
            f"another `data_dir`: {_one_line(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)} "
            f"Received: dataset={request.dataset!r}, data_dir={request.data_dir!r}"
        ) from error
    return builder


def _check_features(name, features):
    """Refuses a dataset that is not stored as images and the numbers of their classes."""
    import tensorflow_datasets as tfds

    if not {"image", "label"} <= set(features):
        raise ValueError(
            "`dataset` must have the features `image` and `label`. "
            f"Received: {name} with {', '.join(features)}"
        )
    # For float32, the bits are stored as the colours of a PNG.
    image, label = features["image"], features["label"]
    if not isinstance(image, tfds.features.Image) or image.dtype.name[:4] != "uint":
        raise ValueError(
            "`dataset` must have a feature `image` that is an Image of uint8 or uint16. "
            f"Received: {name} with image={_one_line(repr(image))}"
        )
    if not isinstance(label, tfds.features.ClassLabel) or label.num_classes is None:
        raise ValueError(
            "`dataset` must have a feature `label` that is a ClassLabel of so many classes. "
            f"Received: {name} with label={_one_line(repr(label))}"
        )


def _check_part(info, argument, key):
    """Refuses a part that tensorflow-datasets cannot make, or that ends before it begins.

    Of the latter tensorflow-datasets makes what depends on the files: no records, fewer than none,
    which it subtracts in a sum, or all to the end of a file.
    """
    import tensorflow_datasets as tfds

    if key is None:
        return
    try:
        parts = tfds.core.ReadInstruction.from_spec(key).to_absolute(info.splits)
        if all((part.from_ or 0) <= _end(info, part) for part in parts):
            return
        reason = "it ends before it begins"
    except ValueError as error:
        reason = _one_line(str(error))
    raise ValueError(
        f'`{argument}` must name a split, a part such as "train[90%:]" or a sum. '
        f"Received: {argument}={key!r}: {reason}"
    )


def _end(info, part):
    return info.splits[part.splitname].num_examples if part.to is None else part.to


def _shared(info, train, validation):
    """How many records two splits, or parts of them, have in common."""
    there = collections.defaultdict(list)  # the parts of each file that are trained on
    for part in info.splits[train].file_instructions:
        there[os.fspath(part.filename)].append((part.skip, part.skip + part.take))
    return sum(
        max(0, min(end, part.skip + part.take) - max(start, part.skip))
        for part in info.splits[validation].file_instructions
        for start, end in there[os.fspath(part.filename)]
    )


def _one_line(text):
    return " ".join(text.split())


def _open_split(builder, name, key):
    import tensorflow_datasets as tfds

    if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
        return TFRecordExamples(name, builder.info, builder.info.splits[key].file_instructions)
    folder = os.fspath(builder.data_dir)
    if storage.is_remote(folder):  # array_record silently ends the process
        raise ValueError(
            "`data_dir` must be on a disk for a dataset that is not stored as TFRecord: copy the "
            f"dataset there, or mount the bucket. Received: {folder}, stored as "
            f"{builder.info.file_format.value}"
        )
    if not builder.info.splits[key].num_examples:  # a part such as "train[:0%]"
        return RandomAccessExamples(name, builder.info, [])
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        records = builder.as_data_source(key, deserialize_method=raw)
    except NotImplementedError as error:
        raise ValueError(
            f"`dataset` must be stored as TFRecord or ArrayRecord. Received: {name}, stored as "
            f"{builder.info.file_format.value}"
        ) from error
    return RandomAccessExamples(name, builder.info, records)
