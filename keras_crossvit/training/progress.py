"""How far a run has got, and what it has seen since its epoch began."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.folder import next_before
from keras_crossvit.training.steps import Totals


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
        self.without_labels = 0  # images of the last steps, since one had a label
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
                images = self.config.batch_size
                self.without_labels = 0 if row[3] else self.without_labels + images
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
        before = next_before(pathlib.Path(self.config.output_dir))
        return (
            f"The {loss} is no longer a finite number, in epoch {epoch + 1}, step {step + 1}. A "
            "lower `learning_rate`, more `warmup_epochs` or `clip_norm` (1.0) helps; with other "
            "values start in another `output_dir`, or with --no-resume, which keeps this run's "
            f"checkpoints, all from before it, in {before}."
        )
