"""What must be the same in all processes of a run before they train together.

Where they differ, each would wait for something that another never does, or some images would be
seen twice and others never.
"""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_crossvit.common.files import as_json
from keras_crossvit.data.sources import Source
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.steps import Step
from keras_crossvit.training.strategy import gather, spans_workers

# Values that may differ between processes, such as where each has its copy of the data.
_OWN = {
    *("dataset", "data_dir", "output_dir", "resume"),
    *("strategy", "worker_timeout", "max_restarts", "parallel_calls"),
}


def check_agreement(strategy: Any, config: TrainConfig, source: Source, step: int) -> None:
    """Compares what all processes of a run were given.

    Args:
        strategy: What `make_strategy` returned.
        config: A `TrainConfig`.
        source: The `Source` of its data.
        step: The step after which this process continues.

    Raises:
        ValueError: In all processes, if some differ.
    """
    if not spans_workers(strategy):
        return
    values = {
        name: _digest(value)
        for name, value in as_json(dataclasses.asdict(config)).items()
        if name not in _OWN
    }
    data = {
        "numbers of images to train on": source.train.size,
        "numbers of held-out images": source.validation.size,
        "classes": _digest(source.class_names),
        "names or labels of images": _digest(source.digest),
    }
    # A file system may give its list of files to one process minutes before another.
    print("Waiting until all processes have read their data.", flush=True)
    rows = gather(strategy, [*values.values(), *data.values(), int(config.resume), step])
    differs = (rows != rows[0]).any(axis=0)
    names = [name for name, other in zip([*values, *data], differs, strict=False) if other]
    if unlike := [name for name in names if name in values]:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in unlike)} must be the same in all processes of a "
            "run. Received here: "
            + ", ".join(f"{name}={getattr(config, name)!r}" for name in unlike)
        )
    if names:
        raise ValueError(
            "`dataset` must hold the same images in all processes of a run. Received: "
            f"{source.name} with other {' and '.join(names)}; here {source.train.size} to train "
            f"on and {source.validation.size} held out, of {len(source.class_names)} classes"
        )
    if differs[-1] and differs[-2]:
        raise ValueError(
            "`resume` must be true in all processes of a run that goes on; one that comes back is "
            f"started without --no-resume. Received here: resume={config.resume}"
        )
    if differs[-1]:
        steps = ", ".join(map(str, np.unique(rows[:, -1])))
        raise ValueError(
            "`output_dir` must be one folder that all processes see. Received: processes that go "
            f"on after steps {steps}"
        )


def check_same_weights(strategy: Any, config: TrainConfig, step: Step) -> None:
    """Compares the weights with which the processes of a run begin, which files may give them.

    Args:
        strategy: What `make_strategy` returned, of several processes or one.
        config: A `TrainConfig`.
        step: The `Step` of this process.

    Raises:
        ValueError: In all processes, if some differ.
    """
    if not spans_workers(strategy):
        return
    variables = [*step.model.weights, *(step.loss.teacher.variables if step.loss.teacher else [])]
    checksum = 0
    for variable in variables:
        checksum = zlib.crc32(keras.ops.convert_to_numpy(variable).tobytes(), checksum)
    if len(np.unique(gather(strategy, [checksum >> 1]))) > 1:
        raise ValueError(_other_weights(config))


@contextlib.contextmanager
def weights_in_one_line(strategy: Any, config: TrainConfig) -> Iterator[None]:
    """A context for making models, in which different weights are a `ValueError` on JAX, too.

    JAX itself compares what several processes put on their devices, and raises an
    `AssertionError` with all the values, in all processes.
    """
    try:
        yield
    except AssertionError as error:
        if not spans_workers(strategy):
            raise
        raise ValueError(_other_weights(config)) from error


def _other_weights(config):
    return (
        "`weights` and `teacher` must hold the same values in all processes of a run. "
        f"Received: weights={config.weights!r}, teacher={config.teacher!r}, which do not"
    )


def _digest(value):
    """31 bits, since JAX truncates integers to 32."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode()) >> 1
