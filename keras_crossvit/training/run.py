"""One training run, from a configuration to an exported model."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_crossvit.common.files import write_atomically
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.pipeline import (
    evaluation_batches,
    labels_in_one_line,
    steps_per_epoch,
    training_batches,
)
from keras_crossvit.data.sources import Source
from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training.agreement import (
    check_agreement,
    check_same_weights,
    weights_in_one_line,
)
from keras_crossvit.training.assembly import (
    build_model,
    check_fit,
    make_schedule,
    make_step,
    open_data,
)
from keras_crossvit.training.best import best_epoch, is_over
from keras_crossvit.training.checkpoints import CheckpointWriter
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.finish import write_result
from keras_crossvit.training.folder import begin_run, run_folder
from keras_crossvit.training.log import RunLog
from keras_crossvit.training.lora import copy_weights
from keras_crossvit.training.preemption import Preempted, StopRequest, watch_for_preemption
from keras_crossvit.training.progress import Progress
from keras_crossvit.training.readable import check_any_read, check_held_out, check_storage
from keras_crossvit.training.resume import check_resumed, last_state
from keras_crossvit.training.steps import COLUMNS, Step, Totals, mean_average_precision
from keras_crossvit.training.strategy import (
    is_chief,
    left_together,
    make_strategy,
    shard_of,
    spans_workers,
)

_LOOK = 10  # steps between looks at the loss, which must wait for the devices

StepHook = Callable[[int, dict[str, float]], Any]
EpochHook = Callable[[dict[str, float], keras.Model], bool | None]


def train(
    config: TrainConfig,
    on_step: StepHook | None = None,
    on_epoch: EpochHook | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and exports; the output folder then holds everything about the run.

    `config.json` (the values), `checkpoints/`, `log.csv` and `tensorboard/` (the curves),
    `curves.png`, `model.keras` (the final weights and the graph), `export/<version>/` (the
    SavedModel) and `result.json`. However a run was ended, it goes on from its last checkpoint
    when restarted, and in float32 on a CPU arrives at the same weights.

    Args:
        config: A `TrainConfig`.
        on_step: Called every ten steps or so, with `accumulation_steps` more often, with the
            step's number and the means of its epoch so far, `{"loss", "accuracy",
            "top5_accuracy"}`.
        on_epoch: Called after each epoch with its row of the log and the model that the row is
            about: it answers with logits and, with `ema_momentum`, has the average of the
            weights during the call. A true return value ends the training there; all processes
            must return the same. On TensorFlow training goes on from weights that it changes.

    Returns:
        `{"model", "source", "history", "loss", "accuracy", "top5_accuracy", "export"}`; the loss
        and accuracies are over all held-out images (top-5 only with more than five classes, here
        as in `on_step` and the log; with several labels also "mean_average_precision"), `history`
        holds a dictionary per epoch, `export` is a folder; with `best` also `best_epoch`, from 0,
        and its value. With several workers only the first writes and exports; the others have
        `None` there.

    Raises:
        ValueError: If a value of `config` does not fit the data, the devices, or the run
            that `output_dir` already holds, or if no image of a split can be read.
        OSError: If `output_dir` cannot be written; or, as when their storage is away, if a
            thousand images of one label in a row cannot be read, or a thousand held-out ones
            that are more than half of all.
        FloatingPointError: If the loss or a weight is NaN or infinite.
        Preempted: A `SystemExit`, after SIGTERM, once everything is saved.
    """
    policy = keras.config.dtype_policy()
    try:
        with labels_in_one_line(config.dataset):
            return _train(config, on_step, on_epoch)
    finally:
        keras.config.set_dtype_policy(policy)


def _train(config, on_step, on_epoch):
    keras.utils.set_random_seed(config.seed)  # before the processes agree on one
    strategy = make_strategy(config.strategy, config.worker_timeout)
    source = open_data(config)
    check_fit(config, source, strategy)
    with (
        run_folder(config, is_chief(strategy)) as folder,
        watch_for_preemption() as stop,
    ):
        saved = last_state(folder, config)
        # First, so that whatever is refused afterwards is refused in every process.
        check_agreement(strategy, config, source, 0 if saved is None else int(saved[1]["step"]))
        if saved is not None:
            check_resumed(folder, saved[1], config, source)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        with weights_in_one_line(strategy, config):
            step = make_step(config, source, strategy, saved and saved[1])
        run = Run(config, source, strategy, folder if is_chief(strategy) else None, step)
        if saved is not None:
            run.restore(*saved)
        check_same_weights(strategy, config, step)
        if is_chief(strategy):
            begin_run(folder, config, resumed=saved is not None)
        with run.checkpoints:
            run.fit(stop, on_step, on_epoch)
        with left_together(strategy):
            return run.finish()


class Run:
    """What the parts of a run share."""

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        strategy: Any,
        folder: pathlib.Path | None,
        step: Step,
    ) -> None:
        self.config, self.source, self.folder, self.step = config, source, folder, step
        self.classes, self.design = len(source.class_names), CrossViTConfig.preset(config.model)
        self.metrics = ["loss", "accuracy", *(["top5_accuracy"] if self.classes > 5 else [])]
        self.shard, self.alone = shard_of(strategy), not spans_workers(strategy)
        self.steps = steps_per_epoch(source.train, config)
        # Sooner where steps take longer: until a look, no process hears that another is to end.
        self.look = max(1, _LOOK // config.accumulation_steps)
        self.size = step.model.input_shape[1:]
        self.crop_ratio = crop_ratio_for(self.size, config.crop_ratio)
        self.progress = Progress(config, self.steps)
        self.best_from = 0  # the first epoch since `config.best` last changed
        self.log = RunLog(folder, make_schedule(config, source))
        self.checkpoints = CheckpointWriter(folder and folder / "checkpoints")

    def fit(
        self,
        stop: StopRequest,
        on_step: StepHook | None = None,
        on_epoch: EpochHook | None = None,
    ) -> None:
        """Trains from the current step to the last.

        Args:
            stop: Set when the process is to end.
            on_step: As in `train`.
            on_epoch: As in `train`.

        Raises:
            Preempted: After `stop` was set, once everything is saved.
        """
        progress, step = self.progress, self.step
        total = self.config.epochs * self.steps
        batches: Any = self._training_batches() if progress.step < total else None
        while (progress.step < total and not progress.ended) or self._owes_an_epoch():
            bar, held_out = self._bar(), None
            while not self._owes_an_epoch():
                count = self._steps_until_something_is_due()
                if (progress.step + count) % self.steps == 0:
                    # Starts reading while the last steps run.
                    held_out = step.feed(self._held_out_batches)
                progress.add(step.train(batches, count, stop.is_set()), count)

                due, leave = self._checkpoint_is_due(), stop.is_set() and self.alone
                if due or leave or self._owes_an_epoch() or progress.step % self.look < count:
                    leave |= progress.look()
                    if not step.several_labels:  # of which an image may have none
                        check_storage(self.source, progress.without_labels)
                    means = self._means(progress.totals)
                    bar.update(self._in_epoch(), [*means.items(), *progress.speed.items()])
                    if on_step is not None:
                        on_step(progress.step, means)
                if due or leave:
                    self.save()
                if leave:
                    self._leave()
            row = self._evaluate(held_out or step.feed(self._held_out_batches), bar, stop)
            self._keep_best()
            progress.ended = self._is_over()
            try:
                if on_epoch is not None:
                    with step.averaged():
                        progress.ended |= bool(on_epoch({**row}, step.model))  # its own copy
                    step.check_trained()
            finally:  # an error of the hook does not cost the epoch
                progress.begin_epoch()
                self.save()

    def _owes_an_epoch(self):
        """Whether all steps are done of an epoch that is not yet in the log."""
        return len(self.log.rows) < self.progress.step // self.steps

    def _steps_until_something_is_due(self):
        step, every = self.progress.step, self.config.checkpoint_steps or self.steps
        to_go = min(self.steps - step % self.steps, every - step % every)
        return min(self.config.steps_per_call, to_go)

    def _checkpoint_is_due(self):
        step, every = self.progress.step, self.config.checkpoint_steps
        return every is not None and step % every == 0 and step % self.steps != 0

    def _in_epoch(self):
        return (self.progress.step - 1) % self.steps + 1

    def _bar(self):
        verbose = 1 if keras.config.is_interactive_logging_enabled() else 2
        if self.folder is None:
            verbose = 0
        else:
            print(f"Epoch {len(self.log.rows) + 1}/{self.config.epochs}")
        names = [*self.metrics, *(f"val_{name}" for name in self.metrics), "images/s"]
        return keras.utils.Progbar(self.steps, verbose=verbose, stateful_metrics=names)

    def _means(self, totals):
        return {name: totals.means[name] for name in self.metrics}

    def _training_batches(self):
        batches = training_batches(
            self.source.train, self.classes, self.size, self.config, self.shard, self.progress.step
        )
        if self.progress.step == 0:
            self.log.show_batch(lambda: next(iter(batches.take(1)))[0])
        return self.step.feed(batches)

    @functools.cached_property
    def _held_out_batches(self):
        batches = evaluation_batches(
            self.source.validation,
            self.classes,
            self.size,
            self.config.batch_size,
            self.crop_ratio,
            self.shard,
            self.config.exif_orientation,
            self.config.parallel_calls,
        )
        options = tf.data.Options()
        options.experimental_warm_start = True  # reads as soon as there is an iterator
        return batches.with_options(options)

    def _evaluate(self, batches, bar, stop):
        """Evaluates, and logs the finished epoch; returns its row."""
        sums, progress = np.zeros(1), self.progress
        self._check_read("train_split", self.source.train, progress.totals.rows)
        for _ in range(math.ceil(self.source.validation.size / self.config.batch_size)):
            sums = sums + np.asarray(self.step.evaluate(batches, stop.is_set()), "float64")
            if not math.isfinite(sums[0]):  # which must not be saved
                raise FloatingPointError(progress.diverged("validation loss"))
            if sums[COLUMNS - 1] > 0:
                self.save()
                self._leave()
        totals = Totals(*sums[:4])
        self._check_read("validation_split", self.source.validation, totals.rows)
        try:
            check_held_out(self.source, totals.rows)
        except OSError:
            self.save()  # the epoch's training was sound
            raise
        validation = {f"val_{name}": value for name, value in self._means(totals).items()}
        if self.step.several_labels:
            precision = mean_average_precision(sums[COLUMNS:].reshape(2, self.classes, -1))
            validation["val_mean_average_precision"] = precision
        values = {**self._means(progress.totals), **validation, **progress.speed}
        bar.update(self.steps, values.items(), finalize=True)
        self.log.add(progress.step // self.steps - 1, values, progress.step - 1)
        return self.log.rows[-1]

    def _best_epoch(self):
        """The best epoch since `config.best` last changed, or `None`."""
        rows = self.log.rows[self.best_from :]
        if self.config.best is None or not rows:
            return None
        return self.best_from + best_epoch(rows, self.config.best)

    def _keep_best(self):
        """Writes `best.keras` after an epoch that is the best so far."""
        if self._best_epoch() != len(self.log.rows) - 1:
            return
        with self.step.averaged():  # in every process: on JAX assigning takes all of them
            model = self._final_model()
        if self.folder is not None:
            with write_atomically(self.folder / "best.keras") as aside:
                model.save(aside)

    def _is_over(self):
        metric, patience = self.config.best or "val_loss", self.config.patience
        rows = self.log.rows if self.config.best is None else self.log.rows[self.best_from :]
        over = is_over(rows, metric, patience)
        if over and self.folder is not None:
            print(f"Ended early: no better {metric} for {patience} epochs.", flush=True)
        return over

    def _check_read(self, name, split, rows):
        check_any_read(self.source, split, name, getattr(self.config, name), rows)

    def restore(self, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Returns to the moment of a checkpoint.

        Raises:
            ValueError: If the variables have changed.
        """
        self.log.rows = notes["log"]
        same = notes.get("best", self.config.best) == self.config.best
        self.best_from = notes.get("best_from", 0) if same else len(self.log.rows)
        self.progress.restore(notes, arrays)
        self.step.restore(arrays, self.config.output_dir)
        if self.progress.step != notes["step"]:
            self.step.set_iterations(self.progress.step)
        if self.folder is not None:
            self.log.write_table()
            done = self.progress.ended or len(self.log.rows) >= self.config.epochs
            where = "The training is done" if done else "Going on"
            print(f"{where} after step {self.progress.step}.", flush=True)

    def save(self) -> None:
        """Starts writing a checkpoint of the current state."""
        if self.folder is not None:
            notes = {
                **self.progress.notes,
                "log": [*self.log.rows],  # a thread writes it while rows are added
                "class_names": self.source.class_names,
                "images": [self.source.train.size, self.source.validation.size],
                "data": self.source.digest,
                "design": dataclasses.asdict(self.design),
                "input_shape": self.size,
                "best": self.config.best,
                "best_from": self.best_from,
            }
            self.checkpoints.write(self.progress.step, self.step.snapshot(), notes)

    def _leave(self):
        self.checkpoints.wait()
        where = f"saved in {self.folder / 'checkpoints'}" if self.folder else "the chief saves"
        print(
            f"\nSIGTERM after step {self.progress.step}: {where}. The same command goes on from "
            "there.",
            flush=True,
        )
        raise Preempted

    def _final_model(self):
        """A new model with the weights of the step's model, LoRA's merged."""
        # Weights may have decided the size where the configuration leaves it open.
        model = build_model(self.config, self.source, weights=None, input_shape=self.size)
        copy_weights(self.step.model, model)
        turned = self.config.exif_orientation
        model.reading = {"crop_ratio": self.crop_ratio, "exif_orientation": turned}
        return model

    def finish(self) -> dict[str, Any]:
        """Saves and exports the final weights, once."""
        last = self.log.rows[-1]
        results = {
            name.removeprefix("val_"): value
            for name, value in last.items()
            if name.startswith("val_")
        }
        best = self._best_epoch()
        if best is not None:
            value = self.log.rows[best][self.config.best]
            results |= {"best_epoch": best, f"best_{self.config.best}": value}
        self.step.put_average_in_place()
        model = self._final_model()
        export = None
        if self.folder is not None:
            self.log.finish()
            options = {"labels": self.source.class_names, **model.reading}
            data = pathlib.PurePath(self.source.name).name  # without the folders of this machine
            resume = self.config.resume
            export = write_result(self.folder, model, results, options, resume, data)
        found = {"model": model, "source": self.source, "history": self.log.rows}
        return {**results, **found, "export": export}
