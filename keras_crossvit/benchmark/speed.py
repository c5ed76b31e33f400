"""Speed of several models on this machine."""

import statistics
import time

import numpy as np


def measure_inference(models, batch_size, repeats=7):
    """Images per second of `predict_on_batch` of several models, batch by batch in turn.

    Turns make the models comparable on a machine that has other work as well: what slows one
    of them down slows all. All of them are in memory together.

    Args:
        models: `{name: model}`, each of a fixed input size.
        batch_size: Images in a batch.
        repeats: Timed batches of each model, after one that is not timed.

    Returns:
        `{name: {"images_per_second": median, "spread": (lowest, highest), "batch_size": ...}}`.
    """
    images = {name: _images(model, batch_size) for name, model in models.items()}
    seconds = {name: [] for name in models}
    for turn in range(1 + repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images[name])
            if turn > 0:  # the first one traces the graph
                seconds[name].append(time.perf_counter() - start)
    return {name: _summary(times, batch_size) for name, times in seconds.items()}


def _images(model, batch_size):
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (batch_size, *model.input_shape[1:])).astype("float32")


def _summary(seconds, batch_size):
    rates = [batch_size / time for time in seconds]
    return {
        "images_per_second": round(statistics.median(rates), 2),
        "spread": (round(min(rates), 2), round(max(rates), 2)),
        "batch_size": batch_size,
    }
