"""What a run writes about itself: a table, TensorBoard's curves, images."""

import csv
import importlib.util
import io
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_crossvit.common.files import write_text
from keras_crossvit.training.curves import plot_curves

# TensorFlow writes no summaries without it, and does not install it.
_HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


class RunLog:
    """The values of each epoch.

    `log.csv` and, where TensorBoard is installed, `tensorboard/` are written after each epoch,
    `curves.png` by `finish`.

    Args:
        folder: The run's folder; `None` writes nothing.
        learning_rate: Function from a step to the learning rate.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, learning_rate: Callable[[int], Any]
    ) -> None:
        self.folder = None if folder is None else pathlib.Path(folder)
        self.learning_rate = learning_rate
        self.rows: list[dict[str, Any]] = []
        self._writers: dict[str, Any] = {}

    def add(self, epoch: int, values: Mapping[str, float], step: int) -> None:
        """Adds an epoch's values, numbers by name.

        Args:
            epoch: Its number, from 0.
            values: The values by name.
            step: The number, from 0, of its last step, whose learning rate is added.
        """
        values = {name: float(value) for name, value in values.items()}
        rate = float(self.learning_rate(step))
        self.rows.append({"epoch": epoch, "learning_rate": rate, **values})
        self.write_table()
        for name, value in {"learning_rate": rate, **values}.items():
            run = "validation" if name.startswith("val_") else "train"
            self._tensorboard(
                run, tf.summary.scalar, name.removeprefix("val_"), value, step=epoch + 1
            )

    def write_table(self) -> None:
        """Rewrites the table, so that what a lost checkpoint had added is not in it."""
        if self.folder is None or not self.rows:
            return
        text = io.StringIO()
        columns = dict.fromkeys(name for row in self.rows for name in row)
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.folder / "log.csv", text.getvalue())

    def show_batch(self, make_images: Callable[[], np.ndarray]) -> None:
        """Shows up to 16 augmented images as one, in TensorBoard.

        Args:
            make_images: Function that returns `(B, height, width, channels)` in 0..255; only
                called if there is a folder to write to.
        """
        if self.folder is None:
            return
        images = np.clip(np.asarray(make_images()[:16]), 0, 255).astype("uint8")
        columns = min(4, len(images))
        images = images[: len(images) // columns * columns]
        rows = np.split(images, len(images) // columns)
        grid = np.concatenate([np.concatenate([*row], axis=1) for row in rows])
        self._tensorboard("train", tf.summary.image, "augmented", grid[np.newaxis], step=0)

    def finish(self) -> None:
        """Draws the curves."""
        if self.folder is not None and self.rows:
            plot_curves(self.rows, self.folder / "curves.png")

    def _tensorboard(self, run, write, *arguments, step):
        if self.folder is None or not _HAS_TENSORBOARD:
            return
        if run not in self._writers:
            path = str(self.folder / "tensorboard" / run)
            self._writers[run] = tf.summary.create_file_writer(path)
        with self._writers[run].as_default(step):
            write(*arguments)
        self._writers[run].flush()
