"""What a run would be, without running it."""

import dataclasses
import json

import keras
import numpy as np

from keras_crossvit.common.checks import check_folder
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.pipeline import (
    evaluation_batches,
    labels_in_one_line,
    steps_per_epoch,
    training_batches,
)
from keras_crossvit.models import count_macs
from keras_crossvit.training.assembly import check_fit, make_step, open_data
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.memory import activation_bytes, bytes_of, variable_bytes
from keras_crossvit.training.resume import check_resumed, last_state
from keras_crossvit.training.strategy import asks_others, make_strategy, replicas_of

_GB, _MB = 2**30, 2**20


def dry_run(config: TrainConfig) -> None:
    """Checks the data of a run, and prints its values, its size and an estimate of its memory.

    Nothing of the run is written (only what opening its data leaves, such as an index of TFRecord
    files), and no other machine is contacted: a run of several workers or on a TPU is checked as a
    run of one process.

    Args:
        config: A `TrainConfig`.

    Raises:
        ValueError: As `train`.
    """
    print(json.dumps(dataclasses.asdict(config), indent=2))
    # In this order, as in a run: JAX's strategies hide accelerators from TensorFlow.
    strategy = make_strategy("none" if asks_others(config.strategy) else config.strategy)
    source = open_data(config)
    check_fit(config, source, strategy)
    folder = check_folder("output_dir", config.output_dir)
    saved = last_state(folder, config)
    notes = None if saved is None else saved[1]
    if notes is not None:
        check_resumed(folder, notes, config, source)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        step = make_step(config, source, strategy, notes)
    finally:
        keras.config.set_dtype_policy(policy)
    _print_model(config, step, replicas_of(strategy))
    with labels_in_one_line(config.dataset):
        _print_data(config, source, step.model.input_shape[1:])


def _print_model(config, step, replicas):
    model = step.model
    weights = model.count_params()
    macs = count_macs(model)
    print(f"\nmodel: {weights / 1e6:.2f} million parameters, {macs / 1e9:.2f} GMACs an image")
    rows = config.batch_size // replicas // config.accumulation_steps
    variables, kinds = variable_bytes(model, step.optimizer), "weights, gradients and optimizer"
    if step.loss.teacher is not None:
        variables += bytes_of(step.loss.teacher.variables)
        kinds = "weights, also the teacher's, gradients and optimizer"
    if keras.backend.backend() != "tensorflow":
        print(
            f"memory of a replica: {_memory(variables)} of {kinds}; "
            "activations are only estimated on TensorFlow"
        )
        return
    activations = rows * activation_bytes(model)
    print(
        f"memory of a replica, estimated: {_memory(activations + variables)} = "
        f"{_memory(variables)} of {kinds} + {_memory(activations)} of activations of {rows} "
        "images at a time"
    )


def _memory(count):
    """A number of bytes as text."""
    return f"{count / _MB:.2f} MB" if count < 0.1 * _GB else f"{count / _GB:.2f} GB"


def _print_data(config, source, size):
    classes, steps = len(source.class_names), steps_per_epoch(source.train, config)
    print(
        f"data: {source.name}, {classes} classes, {source.train.size} images to train on, "
        f"{source.validation.size} held out; {steps} steps an epoch, {config.epochs * steps} "
        "in all"
    )
    images, labels = next(iter(training_batches(source.train, classes, size, config).take(1)))
    print(
        f"a training batch: images {images.shape} in {np.min(images):.0f} to "
        f"{np.max(images):.0f}, labels {labels.shape}"
    )
    ratio = crop_ratio_for(size, config.crop_ratio)
    rows = config.batch_size, ratio, None, config.exif_orientation
    images, _, weights = next(
        iter(evaluation_batches(source.validation, classes, size, *rows).take(1))
    )
    print(f"a held-out batch: images {images.shape}, of which {int(sum(weights))} can be read")
