"""Speed and memory of a model on this machine."""

import resource
import statistics
import time

import keras
import numpy as np


def measure_inference(model, batch_size, repeats=7):
    """Images per second of `model.predict_on_batch`.

    Args:
        model: A model of fixed input size.
        batch_size: Images in a batch.
        repeats: Timed batches, after one that is not timed.

    Returns:
        `{"images_per_second": median, "spread": (lowest, highest), "batch_size": ...}`.
    """
    images = _images(model, batch_size)
    return _rates(lambda: model.predict_on_batch(images), batch_size, repeats)


def measure_training(model, batch_size, repeats=5):
    """Images per second and peak memory of a training step with AdamW, through `fit`'s step.

    Args:
        model: A classifier; it is compiled and trained on noise.
        batch_size: Images in a batch.
        repeats: Timed steps, after one that is not timed.

    Returns:
        As `measure_inference`, with `first_step_seconds` (from compiling to the end of the
        first step) and `peak_memory_gb` (of the whole process, so far).
    """
    images = _images(model, batch_size)
    labels = np.arange(batch_size) % model.output_shape[-1]
    start = time.perf_counter()
    model.compile(keras.optimizers.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy())
    model.optimizer.build(model.trainable_variables)
    model.train_on_batch(images, labels)
    first = time.perf_counter() - start
    result = _rates(lambda: model.train_on_batch(images, labels), batch_size, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**result, "first_step_seconds": round(first, 2), "peak_memory_gb": round(peak, 2)}


def _images(model, batch_size):
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (batch_size, *model.input_shape[1:])).astype("float32")


def _rates(step, batch_size, repeats):
    step()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        rates.append(batch_size / (time.perf_counter() - start))
    return {
        "images_per_second": round(statistics.median(rates), 2),
        "spread": (round(min(rates), 2), round(max(rates), 2)),
        "batch_size": batch_size,
    }
