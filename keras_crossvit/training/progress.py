"""What happens between the steps of a run: it is watched, saved and, if need be, ended."""

import math
import threading
import time

import keras

from keras_crossvit.training.checkpoints import write_checkpoint
from keras_crossvit.training.preemption import Preempted
from keras_crossvit.training.state import capture_state, values_of

_MEAN = "mean {:02d}"  # name of a running mean in a checkpoint


class Progress(keras.callbacks.Callback):
    """Counts steps, writes checkpoints, and ends a run that is preempted or has diverged.

    Args:
        config: The `TrainConfig`.
        steps: Steps of an epoch.
        folder: Where checkpoints go; `None` if this process does not write.
        log: The `RunLog`.
        average: The `WeightAverage`, or `None`.
        means: Variables of the running means of loss and accuracy; empty with several
            workers, over which they are spread.
    """

    def __init__(self, config, steps, folder, log, average, means):
        super().__init__()
        self.config, self.steps, self.folder, self.log = config, steps, folder, log
        self.average, self.means = average, means
        self.preempted = threading.Event()
        self.step = 0
        self._restored, self._epoch_means = {}, {}

    def restore(self, step, arrays):
        """Sets the step, and takes the running means of its epoch out of `arrays`."""
        self.step = step
        names = [name for name in arrays if name.startswith(_MEAN[:5])]
        self._restored = {name: arrays.pop(name) for name in names}

    def on_epoch_begin(self, epoch, logs=None):
        if self._restored:  # `fit` has just reset them
            for number, variable in enumerate(self.means):
                variable.assign(self._restored[_MEAN.format(number)])
        self._restored, self._epoch_means = {}, {}
        self._started, self._done, self._speed = time.perf_counter(), -1, {}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self._done += 1
        if self._done == 0:
            self._started = time.perf_counter()  # the first step traces
        else:
            seconds = time.perf_counter() - self._started
            self._speed = {"images/s": self._done * self.config.batch_size / seconds}
            logs.update(self._speed)
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(self._diverged())
        if self.step % self.steps == 0:
            self._epoch_means = self._values_of_means()  # validation will use the same variables
        if self.preempted.is_set():
            self._leave()
        every = self.config.checkpoint_steps
        if every and self.step % every == 0 and self.step % self.steps:
            self.save()

    def on_test_batch_end(self, batch, logs=None):
        if self.preempted.is_set():
            if self.average is not None:
                self.average.on_test_end()
            self._leave()

    def on_epoch_end(self, epoch, logs=None):
        self.log.add(epoch, {**logs, **self._speed}, self.step)
        self.save()
        if self.preempted.is_set():
            self._leave()

    def save(self):
        """Writes a checkpoint of this moment."""
        if self.folder is None:
            return
        arrays = capture_state(self.model)
        if len(self.log.rows) < self.step / self.steps:  # inside of an epoch, or before its row
            arrays.update(self._epoch_means or self._values_of_means())
        write_checkpoint(self.folder, self.step, arrays, {"step": self.step, "log": self.log.rows})

    def _values_of_means(self):
        return {
            _MEAN.format(number): values_of(variable) for number, variable in enumerate(self.means)
        }

    def _leave(self):
        self.save()
        where = f"saved in {self.folder}" if self.folder else "the chief saves"
        print(
            f"\nSIGTERM after step {self.step}: {where}. The same command goes on from there.",
            flush=True,
        )
        raise Preempted

    def _diverged(self):
        epoch, step = divmod(self.step - 1, self.steps)
        return (
            f"The loss is no longer a finite number, in epoch {epoch + 1}, step {step + 1}. A "
            "lower `learning_rate`, more `warmup_epochs` or `clip_norm` (1.0) helps; with other "
            "values start in another `output_dir`, or with --no-resume, which keeps this run's "
            f"checkpoints, all from before, in {self.folder}.1."
        )
