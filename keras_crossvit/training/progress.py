"""How far a run has got, and what it has seen since its epoch began."""

import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from keras_crossvit.data.sources import Source
from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.folder import next_before
from keras_crossvit.training.steps import Totals

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """The state of the loop, apart from the model's and the optimizer's.

    Args:
        config: The `TrainConfig`.
        steps: Steps per epoch.
        step: Steps done or started.
        totals: Sums over the epoch's steps that have been looked at.
        ended: Whether a hook, or `patience`, has ended the training.
    """

    config: TrainConfig
    steps: int
    step: int = 0
    totals: Totals = dataclasses.field(default_factory=Totals)
    ended: bool = False
    speed: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun: list[Any] = []  # what steps returned that have not been looked at
        self._looked_at = self.step
        self._clock: tuple[float, int] | None = None

    def add(self, sums: Any, count: int) -> None:
        """Records that `count` steps were started, and what they return."""
        self._begun.append(sums)
        self.step += count

    def look(self) -> bool:
        """Waits for the steps that were started, and adds up what they returned.

        Returns:
            Whether any process wants to end: the same in all of them.

        Raises:
            FloatingPointError: If the loss is NaN or infinite.
        """
        stop = False
        for sums in self._begun:
            for row in np.asarray(sums):
                self._looked_at += 1
                if not math.isfinite(row[0]):
                    raise FloatingPointError(self.diverged("loss"))
                self.totals.add(row)
                stop |= bool(row[4] > 0)
        self._begun.clear()
        self._measure()
        return stop

    def _measure(self):
        """Images/s since the first look of the epoch, before which the step may be compiled."""
        now = time.perf_counter()
        if self._clock is None:
            self._clock = now, self.step
        elif self.step > self._clock[1]:
            images = (self.step - self._clock[1]) * self.config.batch_size
            self.speed = {"images/s": images / (now - self._clock[0])}

    def begin_epoch(self) -> None:
        """Forgets the epoch that has been logged."""
        self.totals, self.speed, self._clock = Totals(), {}, None

    @property
    def notes(self) -> dict[str, Any]:
        """What belongs in a checkpoint."""
        return {
            "step": self.step,
            "totals": dataclasses.astuple(self.totals),
            "batch_size": self.config.batch_size,
            "steps_per_epoch": self.steps,
            "epochs": self.config.epochs,
            "patience": self.config.patience,
            "ended": self.ended,
        }

    def restore(self, notes: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Returns to the moment of a checkpoint, in steps of this run's batch size and data.

        Args:
            notes: The checkpoint's `notes`.
            arrays: Its arrays, from which version 0.1's running means are removed.
        """
        means = [arrays.pop(name) for name in sorted(arrays) if name.startswith("mean ")]
        totals = notes.get("totals")
        if means:  # total and count, of loss, top-1 and top-5
            totals = [*(float(total) for total in means[::2]), float(means[1])]
        self.step = int(notes["step"])
        self.totals = Totals(*totals) if totals else Totals()
        now = self.config.epochs, self.config.patience, self.config.best
        same = now == (notes.get("epochs"), notes.get("patience"), notes.get("best", now[2]))
        self.ended = notes.get("ended", False) and same
        rows, steps = notes["batch_size"], int(notes["steps_per_epoch"])
        if (rows, steps) != (self.config.batch_size, self.steps):
            epoch, done = divmod(self.step, steps)
            inside = min(done * rows // self.config.batch_size, self.steps - 1)
            self.step = epoch * self.steps + inside
            if done and inside == 0:  # the epoch starts afresh
                self.totals = Totals()
        self._looked_at = self.step

    def diverged(self, loss: str) -> str:
        """The message about a loss that is no number, at the last step that was looked at."""
        epoch, step = divmod(self._looked_at - 1, self.steps)
        before = next_before(pathlib.Path(self.config.output_dir).expanduser())
        return (
            f"The {loss} is no longer a finite number, in epoch {epoch + 1}, step {step + 1}. A "
            "lower `learning_rate`, more `warmup_epochs` or `clip_norm` (1.0) helps; with other "
            "values start in another `output_dir`, or with --no-resume, which keeps this run's "
            f"checkpoints, all from before it, in {before}."
        )


def check_epochs(notes: dict[str, Any], config: TrainConfig, source: Source) -> None:
    """Refuses to end a run before the end of the epoch that a checkpoint has begun.

    There would be no results of the weights that it would end with.

    Args:
        notes: The checkpoint's notes, which get the `steps_per_epoch` that version 0.1 left out.
        config: The `TrainConfig` of the resumed run.
        source: Its data.

    Raises:
        ValueError: If `epochs` is too small.
    """
    notes.setdefault("steps_per_epoch", source.train.size // int(notes["batch_size"]))
    begun = math.ceil(notes["step"] / notes["steps_per_epoch"])
    if config.epochs < begun:
        raise ValueError(
            f"`epochs` must be at least {begun}, which the run in {config.output_dir} has begun. "
            f"Received: epochs={config.epochs}"
        )


def compare_design(notes: Mapping[str, Any], design: CrossViTConfig) -> None:
    """Refuses a model other than a checkpoint's, also where all its weights would fit.

    Args:
        notes: The checkpoint's notes.
        design: That of the resumed run's model.

    Raises:
        ValueError: If a recipe file now registers another design under the name.
    """
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


def compare_data(notes: Mapping[str, Any], source: Source) -> None:
    """Refuses classes other than a checkpoint's; logs that there are other images or labels.

    Args:
        notes: The checkpoint's notes.
        source: The data of the resumed run.

    Raises:
        ValueError: If the data's classes have changed.
    """
    names = notes.get("class_names", source.class_names)
    for number, (was, is_now) in enumerate(zip_longest(names, source.class_names)):
        if was != is_now:
            before, now = (repr(name) if name is not None else "none" for name in (was, is_now))
            raise ValueError(
                "`dataset` must have the classes that the run began with, in their order. "
                f"Received: {source.name}, whose class {number} is {now} instead of {before}"
            )
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
