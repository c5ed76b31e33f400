"""Images per second per core that the input pipeline delivers, next to timm's."""

import io
import os
import random
import time
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.candidates import import_timm
from benchmarks.turns import median, ratios, worker
from keras_crossvit.data.config import InputConfig
from keras_crossvit.data.pipeline import training_batches
from keras_crossvit.data.sources import MemorySplit

_IMAGE_SIZE = (375, 500)  # the usual one in ImageNet
_IMAGES = 32
_CLASSES = 1000
_ROWS = 6400
_BATCHES = 12  # in one turn, so that what was made in advance hardly counts


def measure_input(size: int = 240, batch_size: int = 64, repeats: int = 5) -> dict[str, Any]:
    """Measures the reference policy, from JPEG files in memory to mixed batches, on one core.

    Two processes on the same core make batches in turn, so that other work on the machine
    disturbs both equally. Ours is the whole pipeline of a training run. timm's is its own, with
    PIL: `create_transform(..., auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)` and
    `Mixup`.

    Args:
        size: Side of the result, in pixels.
        batch_size: Images in a batch.
        repeats: Timed turns of each, of twelve batches, after two that are not timed.

    Returns:
        `{"images_per_second_per_core", "timm_images_per_second_per_core", "ratio", "ratios":
        (lowest, highest), "size", "batch_size"}`; medians. timm's figures are `None` without
        timm, torchvision and PIL, or if it failed.

    Raises:
        RuntimeError: If the measurement of ours fails.
    """
    rate = "images_per_second"
    timm_made = worker(_timm_batches, size, batch_size, required=False)
    with worker(_our_batches, size, batch_size) as ours, timm_made as timm:
        pairs = [(ours(rate), timm(rate)) for _ in range(repeats + 2)][2:]
    rates, timm_rates = zip(*pairs, strict=True)
    return {
        "images_per_second_per_core": median(rates, 1),
        "timm_images_per_second_per_core": median(timm_rates, 1),
        **ratios(rates, timm_rates),
        "size": size,
        "batch_size": batch_size,
    }


def _one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _rate(make_batch, batch_size):
    """`{"images_per_second": a function that makes some batches}`."""

    def measure():
        start = time.process_time()
        for _ in range(_BATCHES):
            make_batch()
        return _BATCHES * batch_size / (time.process_time() - start)

    return {"images_per_second": measure}


def _files():
    """JPEG files: parts of the two photographs that come with scikit-learn."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    files = []
    for photo in load_sample_images().images:
        for _ in range(_IMAGES // 2):
            top, left = generator.integers(0, np.subtract(photo.shape[:2], _IMAGE_SIZE) + 1)
            file = io.BytesIO()
            part = photo[top : top + _IMAGE_SIZE[0], left : left + _IMAGE_SIZE[1]]
            Image.fromarray(part).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def _our_batches(size, batch_size):
    """The next batches of a training run by the recipe `imagenet`."""
    _one_core()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    split = MemorySplit(_files() * (_ROWS // _IMAGES), np.arange(_ROWS) % _CLASSES)
    config = InputConfig(batch_size=batch_size, epochs=300, parallel_calls=1)
    batches = training_batches(split, _CLASSES, (size, size), config)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    iterator = iter(batches.with_options(options))
    return _rate(lambda: next(iterator), batch_size)


def _timm_batches(size, batch_size):
    """The next batches of timm, or nothing where timm cannot be imported."""
    _one_core()
    timm = import_timm()
    if timm is None:
        return {}
    import torch
    from PIL import Image

    files = _files()
    transform = timm.data.create_transform(
        size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )
    mixup = timm.data.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=_CLASSES)
    labels = torch.arange(batch_size) % _CLASSES
    torch.set_num_threads(1)

    def read():
        while True:
            try:
                return transform(Image.open(io.BytesIO(random.choice(files))).convert("RGB"))
            except ValueError:  # timm posterizes to 0 bits, which PIL no longer accepts
                continue

    return _rate(
        lambda: mixup(torch.stack([read() for _ in range(batch_size)]), labels), batch_size
    )
