"""The data at scale: the order of an epoch, what each worker reads, what it costs to resume."""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
import tracemalloc
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.data.config import InputConfig
from keras_crossvit.data.order import EpochOrder
from keras_crossvit.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import Source, Split, open_source, storage
from keras_crossvit.data.sources.compact import Strings
from keras_crossvit.data.sources.splits import PartOfSplit

_CLASSES = 100
_FILES = 64
_SIZE = (8, 8)  # of an image, and of what the model would take
_BATCH_SIZE = 4096
_STEPS = 50  # whose batches are made by one worker, and by several
_IMAGENET = 1_281_167

_PLAIN = InputConfig(
    batch_size=_BATCH_SIZE, augment="none", crop_area=(1.0, 1.0), label_smoothing=0.0
)


def measure_scale(records: int = 1_000_000, workers: int = 8) -> dict[str, Any]:
    """Measures how data reach the workers, on a synthetic TensorFlow dataset.

    Its records are small, sorted by 100 classes, and stored in TFRecord shards in a temporary
    folder. The workers run one after the other in this process, each alone. Batches are of
    4,096, or of a tenth of the records if that is less.

    Args:
        records: Images of the dataset, at least 40 for each worker.
        workers: Number of workers to compare with one.

    Returns:
        `{name: figures}`, which `to_markdown` explains. What was measured for one worker and
        for several is a dictionary keyed by their number.

    Raises:
        ValueError: If there are too few records.
    """
    check_positive_int("workers", workers)
    check_positive_int("records", records)
    if records < 40 * workers:
        raise ValueError(
            f"`records` must be at least 40 for each of the {workers} workers. "
            f"Received: records={records}"
        )
    batch_size = min(_BATCH_SIZE, records // 10) // (2 * workers) * 2 * workers
    config = dataclasses.replace(_PLAIN, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        to_write, _ = _timed(lambda: _write(pathlib.Path(folder), records))
        to_open, source = _timed(lambda: _open(folder))
        split, counts = source.train, sorted({1, workers})
        return {
            "records": records,
            "workers": workers,
            "batch_size": batch_size,
            "seconds_to_write": to_write,
            "seconds_to_open_and_index": to_open,
            **_measure_order(records),
            "entropy_of_a_batch_bits": {n: _entropy(split, config, n) for n in counts},
            "first_batch": _measure_first_batches(split, config),
            "training": {n: _measure_training(split, config, n) for n in counts},
            "evaluation": {n: _measure_evaluation(split, batch_size, n) for n in counts},
            "order_of_imagenet_mb": _memory(_order_of_imagenet),
            "paths_of_imagenet_mb": _memory(lambda: Strings(_imagenet_paths())),
        }


def to_markdown(figures: dict[str, Any]) -> str:
    """The figures of `measure_scale` as a table."""
    one, several = 1, figures["workers"]
    first, last = figures["first_batch"]["start"], figures["first_batch"]["end"]

    def each(what):
        return [", ".join(map(str, sorted(set(figures[what][n]["mb"])))) for n in (one, several)]

    def memory(what):
        return "{kept} kept, {peak} at most".format(**figures[what])

    same = "the same order"
    rows = [
        ("", "1 worker", f"{several} workers"),
        ("---", "---:", "---:"),
        (
            "distinct images of an epoch, `repeated_augmentation=3`",
            f"{figures['distinct_images_of_one_epoch_with_3_repeats']:,}",
            same,
        ),
        (
            "distinct images of two epochs",
            f"{figures['distinct_images_of_two_epochs_with_3_repeats']:,}",
            same,
        ),
        (
            f"label entropy of a batch of {figures['batch_size']:,}, of "
            f"{np.log2(_CLASSES):.2f} bits",
            *(figures["entropy_of_a_batch_bits"][n] for n in (one, several)),
        ),
        ("rank correlation of the order between epochs", figures["rank_correlation"], same),
        ("MB read by each worker, training", *each("training")),
        ("MB read by each worker, evaluation", *each("evaluation")),
        (
            "rows/s of all workers, each alone",
            *(f"{figures['training'][n]['rows_per_second']:,}" for n in (one, several)),
        ),
        (
            "processor time of a row (µs)",
            *(figures["training"][n]["cpu_microseconds_per_row"] for n in (one, several)),
        ),
        ("first batch at an epoch's start", f"{first['seconds']} s, {first['mb']} MB", ""),
        ("first batch at an epoch's end", f"{last['seconds']} s, {last['mb']} MB", ""),
        ("MB of the order of 1.28 M images", memory("order_of_imagenet_mb"), "the same"),
        ("MB of 1.28 M paths of a folder", memory("paths_of_imagenet_mb"), "the same"),
    ]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def _write(folder: pathlib.Path, records: int) -> None:
    """A TensorFlow dataset "scale" in `folder`, of black images, sorted by class."""
    folder = folder / "scale" / "1.0.0"
    folder.mkdir(parents=True)
    image = tf.io.encode_png(np.zeros((*_SIZE, 3), "uint8")).numpy()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(*_SIZE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=_CLASSES),
        }
    )
    examples = [
        features.serialize_example({"image": image, "label": label}) for label in range(_CLASSES)
    ]
    ends = np.arange(1, _FILES + 1) * records // _FILES
    starts = np.concatenate([[0], ends[:-1]])
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        path = folder / f"scale-train.tfrecord-{number:05}-of-{_FILES:05}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for label in np.arange(start, end) * _CLASSES // records:
                writer.write(examples[label])
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[int(count) for count in ends - starts], num_bytes=0
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split]
    )


def _open(folder: str) -> Source:
    return open_source("scale", folder, validation_split="train[:1]")


def _order(size: int, repeats: int = 1) -> EpochOrder:
    return EpochOrder(size, size, seed=0, repeats=repeats)


def _measure_order(size: int) -> dict[str, Any]:
    orders = [_order(size)(np.arange(size) + size * epoch) for epoch in range(2)]
    repeated = _order(size, repeats=3)
    images = [repeated(np.arange(size) + size * epoch) for epoch in range(2)]
    return {
        "distinct_images_of_one_epoch_with_3_repeats": len(np.unique(images[0])),
        "distinct_images_of_two_epochs_with_3_repeats": len(np.union1d(*images)),
        "rank_correlation": round(float(np.corrcoef(orders)[0, 1]), 5),
    }


def _shards(workers: int) -> list[Shard]:
    return [Shard(worker, workers) for worker in range(workers)]


def _entropy(split: Split, config: InputConfig, workers: int) -> float:
    """Entropy of the labels of the first whole batch, put together from all workers' parts."""
    counts = np.zeros(_CLASSES)
    for shard in _shards(workers):
        batches = training_batches(split, _CLASSES, _SIZE, config, shard)
        counts += next(iter(batches))[1].numpy().sum(0)
    shares = counts[counts > 0] / counts.sum()
    return round(float(-(shares * np.log2(shares)).sum()), 2)


def _measure_first_batches(split: Split, config: InputConfig) -> dict[str, dict[str, float]]:
    """The first batch of a run that begins, and of one resumed before its epoch's last."""
    last = steps_per_epoch(split, config) - 1
    run = dataclasses.replace(config, epochs=2)
    figures = {}
    for name, step in (("start", 0), ("end", last)):
        with _counted_reads() as sizes:
            batches = training_batches(split, _CLASSES, _SIZE, run, first_step=step)
            iterator = iter(batches)
            seconds, _ = _timed(lambda iterator=iterator: next(iterator))
            figures[name] = {"seconds": seconds, "mb": _mb(sizes)}
            del iterator
    return figures


def _measure_training(split: Split, config: InputConfig, workers: int) -> dict[str, Any]:
    """The last batches of an epoch, made by `workers` workers, one after another."""
    steps = min(_STEPS, steps_per_epoch(split, config))
    first = steps_per_epoch(split, config) - steps

    def batches(shard):
        return training_batches(split, _CLASSES, _SIZE, config, shard, first)

    return _measure_reading(batches, workers)


def _measure_evaluation(split: Split, batch_size: int, workers: int) -> dict[str, Any]:
    """As many rows as `_measure_training` takes, or all."""
    rows = np.arange(min(_STEPS * batch_size, split.size))
    part = PartOfSplit(split, rows)

    def batches(shard):
        return evaluation_batches(part, _CLASSES, _SIZE, batch_size, 1.0, shard)

    return {"mb": _measure_reading(batches, workers)["mb"]}


def _measure_reading(batches: Callable, workers: int) -> dict[str, Any]:
    megabytes, rates, rows, cpu = [], [], 0, 0.0
    for shard in _shards(workers):
        with _counted_reads() as sizes:
            before = time.process_time()
            seconds, made = _timed(lambda shard=shard: _count_rows(batches(shard)), digits=6)
            cpu += time.process_time() - before
        megabytes.append(_mb(sizes))
        rates.append(made / seconds)
        rows += made
    return {
        "mb": megabytes,
        "rows_per_second": round(sum(rates)),
        "cpu_microseconds_per_row": round(cpu / rows * 1e6),
    }


def _count_rows(batches: tf.data.Dataset) -> int:
    return sum(len(batch[0]) for batch in batches)


@contextlib.contextmanager
def _counted_reads() -> Iterator[list[int]]:
    """A context with a list that gets the size of every read of records, in bytes."""
    sizes: list[int] = []
    read_range = storage.read_range

    def counted(path: str, start: int, size: int) -> bytes:
        data = read_range(path, start, size)
        sizes.append(len(data))
        return data

    with unittest.mock.patch.object(storage, "read_range", counted):
        yield sizes


def _mb(sizes: list[int]) -> float:
    return round(sum(sizes) / 1e6, 3)


def _timed(function: Callable, digits: int = 2) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return round(time.perf_counter() - start, digits), result


def _memory(make: Callable) -> dict[str, float]:
    """Megabytes that are kept while what `make` returns is there, and their peak."""
    tracemalloc.start()
    kept = make()
    figures = [round(size / 1e6, 1) for size in tracemalloc.get_traced_memory()]
    tracemalloc.stop()
    del kept
    return dict(zip(("kept", "peak"), figures, strict=True))


def _order_of_imagenet() -> EpochOrder:
    """An order that has reached its second epoch, so that it holds two permutations."""
    order = _order(_IMAGENET)
    order(np.array([0, _IMAGENET]))
    return order


def _imagenet_paths() -> Iterator[str]:
    """Paths like those of ImageNet's training images in length and number."""
    for number in range(_IMAGENET):
        wordnet_id = f"n{number // 1300:08}"
        yield f"{wordnet_id}/{wordnet_id}_{number % 30_000}.JPEG"
