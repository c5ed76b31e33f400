"""Whether a run may go on from its last checkpoint, and what has changed since."""

import dataclasses
import logging
import math
import pathlib
from itertools import zip_longest
from typing import Any

import numpy as np

from keras_crossvit.common.files import as_json
from keras_crossvit.data.sources import Source
from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training.checkpoints import read_last_checkpoint
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.folder import read_json

logger = logging.getLogger(__name__)

# Values that may change between the parts of a run: those that do not affect its course,
_FREE = {
    *("output_dir", "data_dir", "strategy", "checkpoint_steps", "resume", "parallel_calls"),
    *("steps_per_call", "worker_timeout", "max_restarts", "best", "patience"),
}
# and those that do, which is then logged.
_CHANGING = {
    "epochs": "the learning rate follows the schedule of the new number of epochs from here on",
    "warmup_epochs": "the learning rate follows the schedule of the new warm-up from here on",
    "batch_size": "from here on steps and the learning rate follow the new size",
    "mixing_batch_size": "different images are mixed with each other",
    "exif_orientation": "images are now turned upright as their EXIF says, or no longer are",
    "precision": "numbers are rounded differently",
    "accumulation_steps": "sums are rounded differently",
    "gradient_checkpointing": "sums may be rounded differently",
    "jit_compile": "sums are rounded differently",
}


def last_state(
    folder: pathlib.Path, config: TrainConfig
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The last checkpoint of the run that the folder holds, if the run is resumed.

    Args:
        folder: The run's folder.
        config: Its `TrainConfig`.

    Returns:
        `(arrays, notes)` of the checkpoint, or `None` at the start of a run.
    """
    return read_last_checkpoint(folder / "checkpoints") if config.resume else None


def check_resumed(
    folder: pathlib.Path, notes: dict[str, Any], config: TrainConfig, source: Source
) -> None:
    """Refuses a run that cannot go on from a checkpoint.

    What may change between the parts of a run is logged, once it is known that nothing else has.

    Args:
        folder: The run's folder.
        notes: Those of the checkpoint, which get what version 0.1 did not record.
        config: The `TrainConfig` of the run.
        source: Its data.

    Raises:
        ValueError: If the folder holds a run of other values that may not change, of other
            classes or of another design of the model, or one that has begun more than `epochs`.
    """
    before = read_json(folder / "config.json")
    changed = {} if before is None else _changes(before, config)
    # Version 0.1 recorded neither.
    notes.setdefault("batch_size", (before or {}).get("batch_size", config.batch_size))
    notes.setdefault("steps_per_epoch", source.train.size // int(notes["batch_size"]))
    _check_values(folder, changed)
    _check_classes(notes, source)
    _check_epochs(notes, config)
    _check_design(notes, CrossViTConfig.preset(config.model))
    if before is None:
        logger.warning("%s records no values; the current ones are used", folder / "config.json")
    for name, (old, new) in changed.items():
        logger.warning("%s goes on as %r instead of %r: %s", name, new, old, _CHANGING[name])
    _log_other_data(notes, source)


def _changes(before, config):
    """`{name: (value before, value now)}` of what a run that is resumed would do differently."""
    now = as_json(dataclasses.asdict(config))
    # An option newer than the run had, in effect, the value that is now its default.
    defaults = {
        field.name: as_json(field.default)
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING
    }
    # Version 0.1 turned no image.
    before = {**now, **defaults, "exif_orientation": False, **before}
    changed = {
        name: (before[name], now[name])
        for name in now
        if name not in _FREE and before[name] != now[name]
    }
    if _both_have_a_path(before["dataset"], now["dataset"]):
        changed.pop("dataset", None)  # moved, or another process's copy
    return changed


def _both_have_a_path(before, now):
    """Whether both datasets are folders, or both are tables."""
    return {text.partition(":")[0] for text in (before, now)} in ({"folder"}, {"csv"})


def _check_values(folder, changed):
    refused = [name for name in changed if name not in _CHANGING]
    if refused:
        raise ValueError(
            f"`output_dir` holds a run with other values, {folder}: "
            + ", ".join(f"{name}={changed[name][0]!r}" for name in refused)
            + ". Go on with these, take another `output_dir`, or start afresh with --no-resume. "
            + f"Received: {', '.join(f'{name}={changed[name][1]!r}' for name in refused)}"
        )


def _check_classes(notes, source):
    names = notes.get("class_names", source.class_names)
    for number, (was, is_now) in enumerate(zip_longest(names, source.class_names)):
        if was != is_now:
            before, now = (repr(name) if name is not None else "none" for name in (was, is_now))
            raise ValueError(
                "`dataset` must have the classes that the run began with, in their order. "
                f"Received: {source.name}, whose class {number} is {now} instead of {before}"
            )


def _check_epochs(notes, config):
    """Ended before the end of the epoch that it has begun, a run would have no results."""
    begun = math.ceil(notes["step"] / notes["steps_per_epoch"])
    if config.epochs < begun:
        raise ValueError(
            f"`epochs` must be at least {begun}, which the run in {config.output_dir} has begun. "
            f"Received: epochs={config.epochs}"
        )


def _check_design(notes, design):
    """Refuses a model other than the run's, also where all the weights would fit."""
    now = [*_leaves(dataclasses.asdict(design))]
    before = [*_leaves(notes.get("design", {}))]  # earlier versions recorded none
    changed = [leaf for leaf in before if leaf not in now]
    if changed:
        was, is_now = (
            ", ".join(f"{name}={value!r}" for name, value in leaves)
            for leaves in (changed, [leaf for leaf in now if leaf not in before])
        )
        raise ValueError(
            f"`model` must be of the design that the run began with, {was}. Received: {is_now}"
        )


def _leaves(values, path=""):
    """`(name, value)` of all values in nested dictionaries, such as `("small.depth", 1)`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _log_other_data(notes, source):
    images = [source.train.size, source.validation.size]
    noted = notes.get("images", images)  # version 0.1 recorded none
    if noted != images:
        logger.warning(
            "%s has changed: from here on there are %d images to train on and %d held out, "
            "instead of %d and %d, and their order has changed",
            *(source.name, *images, *noted),
        )
    elif notes.get("data") not in (None, source.digest):
        logger.warning(
            "%s has changed: from here on there are other images, in another order, or other "
            "labels, as many as before",
            source.name,
        )
