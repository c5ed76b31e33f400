"""One training run, from a configuration to an exported model."""

import contextlib
import dataclasses
import json
import math
import pathlib

import keras
import tensorflow as tf

from keras_crossvit.common.files import write_atomically, write_json
from keras_crossvit.data.images import default_crop_ratio
from keras_crossvit.data.pipeline import (
    OUTSIDE,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from keras_crossvit.export import export_saved_model
from keras_crossvit.training.assembly import (
    build_model,
    check_fit,
    make_schedule,
    make_trainee,
    open_data,
)
from keras_crossvit.training.checkpoints import put_aside, read_last_checkpoint
from keras_crossvit.training.log import RunLog
from keras_crossvit.training.lora import copy_weights
from keras_crossvit.training.preemption import watch_for_preemption
from keras_crossvit.training.progress import Progress
from keras_crossvit.training.state import WeightAverage, restore_state
from keras_crossvit.training.strategy import (
    distribute,
    is_chief,
    make_strategy,
    shard_of,
    spans_workers,
)

# Values that may change between the parts of a run: they decide nothing of its course.
_FREE = {"output_dir", "data_dir", "strategy", "checkpoint_steps", "resume", "parallel_calls"}


def train(config):
    """Trains, evaluates and exports; the output folder then holds everything of the run.

    `config.json` (the values), `checkpoints/`, `log.csv` and `tensorboard/` (the curves),
    `curves.png`, `model.keras` (the final weights and the graph), `export/<version>/` (the
    SavedModel) and `result.json`. A run that was ended in any way goes on from its last
    checkpoint when it is started again, and in float32 on a CPU comes to the same weights.

    Args:
        config: A `TrainConfig`.

    Returns:
        `{"model", "source", "history", "loss", "accuracy", "top5_accuracy", "export"}`; the
        loss and accuracies are of all held-out pictures, `history` holds a dictionary per
        epoch, `export` is a folder. Of several workers only the first writes and exports;
        the others have `None` there.

    Raises:
        ValueError: If a value of `config` does not fit the data, the devices, or the run
            that `output_dir` already holds.
        FloatingPointError: If the loss is no longer a number.
        Preempted: A `SystemExit`, after SIGTERM, once everything is saved.
    """
    policy = keras.config.dtype_policy()
    try:
        return _train(config)
    finally:
        keras.config.set_dtype_policy(policy)


def _train(config):
    strategy = make_strategy(config.strategy)
    source = open_data(config)
    check_fit(config, source, shard_of(strategy))
    folder = pathlib.Path(config.output_dir)
    state = _prepare_folder(folder, config, is_chief(strategy))
    run = _Run(config, source, strategy)
    if state is not None:
        run.restore(*state)
    with watch_for_preemption() as preempted, _clear_messages(config):
        run.fit(preempted)
    return run.finish()


@contextlib.contextmanager
def _clear_messages(config):
    """Says what is wrong with the data where TensorFlow says which operation found it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if OUTSIDE not in str(error):
            raise
        raise ValueError(
            f"`dataset` must have labels of its classes alone. Received: {config.dataset}, where "
            f"{OUTSIDE}. A split without labels can be the reason: choose another by "
            "`train_split` and `validation_split`"
        ) from error


def _prepare_folder(folder, config, writes):
    """Writes the configuration; returns the last checkpoint, if the run goes on."""
    checkpoints, saved = folder / "checkpoints", folder / "config.json"
    if not config.resume:
        if writes:
            put_aside(checkpoints)
            put_aside(folder / "result.json")
        state = None
    else:
        state = read_last_checkpoint(checkpoints)
    if state is not None and saved.exists():
        before, now = json.loads(saved.read_text(encoding="utf-8")), _as_json(config)
        before.setdefault("exif_orientation", False)  # before it was a value, no image was turned
        changed = [name for name in now if name not in _FREE and before.get(name) != now[name]]
        if changed:
            raise ValueError(
                f"`output_dir` holds a run with other values, {folder}: "
                + ", ".join(f"{name}={before.get(name)!r}" for name in changed)
                + ". Go on with these, take another `output_dir`, or begin anew with --no-resume. "
                + f"Received: {', '.join(f'{name}={now[name]!r}' for name in changed)}"
            )
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(saved)
    return state


def _as_json(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


class _Run:
    """What the parts of a run share."""

    def __init__(self, config, source, strategy):
        self.config, self.source, self.strategy = config, source, strategy
        self.classes = len(source.class_names)
        self.shard = shard_of(strategy)
        self.steps = steps_per_epoch(source.train, config)
        self.folder = pathlib.Path(config.output_dir) if is_chief(strategy) else None
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        with strategy.scope():
            accuracies = [
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                keras.metrics.TopKCategoricalAccuracy(5, name="top5_accuracy"),
            ]
            self.trainee, self.model = make_trainee(config, source, accuracies)
        loss = next(metric for metric in self.trainee.metrics if metric.name == "loss")
        self.means = [loss, *accuracies]
        self.size = self.trainee.input_shape[1:3]
        self.crop_ratio = config.crop_ratio or default_crop_ratio(self.size)
        self.log = RunLog(self.folder, make_schedule(config, source))
        self.average = None
        if config.ema_momentum is not None:
            self.average = WeightAverage()
            self.average.set_model(self.trainee)
        self.progress = Progress(
            config,
            self.steps,
            self.folder and self.folder / "checkpoints",
            self.log,
            self.average,
            [] if spans_workers(strategy) else [v for mean in self.means for v in mean.variables],
        )

    def restore(self, arrays, notes):
        """Goes back to the moment of a checkpoint."""
        self.log.rows = notes["log"]
        self.progress.restore(notes["step"], arrays)
        restore_state(self.trainee, arrays, self.config.output_dir)
        if self.folder is not None:
            self.log.write_table()
            print(f"Going on after step {notes['step']}.", flush=True)

    def fit(self, preempted):
        """Trains from the step that is reached to the last."""
        self.progress.preempted = preempted
        batches = None
        if self.folder is not None and self.progress.step == 0:
            batches = self._training_batches()
            self.log.show_batch(next(iter(batches.take(1)))[0])
        if len(self.log.rows) < self.progress.step // self.steps:
            self._finish_epoch()
        done = self.progress.step % self.steps
        if done:
            self._fit(self.progress.step // self.steps + 1, self.steps - done)
        if self.progress.step < self.config.epochs * self.steps:
            self._fit(self.config.epochs, self.steps, batches)

    def _finish_epoch(self):
        """Validates an epoch that was cut off after its last step."""
        self.progress.set_model(self.trainee)
        epoch = self.progress.step // self.steps - 1
        self.trainee.reset_metrics()
        self.progress.on_epoch_begin(epoch)
        logs = {mean.name: mean.result() for mean in self.means}
        for mean in self.means:  # Keras resets no metrics that have not been used yet
            mean.reset_state()
        results = self.trainee.evaluate(
            self._held_out(),
            steps=self._held_out_steps,
            callbacks=self._callbacks,
            return_dict=True,
            verbose=0,
        )
        validation = {f"val_{name}": value for name, value in results.items()}
        self.progress.on_epoch_end(epoch, {**logs, **validation})

    def _training_batches(self):
        return training_batches(
            self.source.train, self.classes, self.size, self.config, self.shard, self.progress.step
        )

    def _held_out(self):
        batches = evaluation_batches(
            self.source.validation,
            self.classes,
            self.size,
            self.config.batch_size,
            self.crop_ratio,
            self.shard,
            self.config.exif_orientation,
        )
        # Repeated, since Keras takes each epoch's steps from one iterator.
        return distribute(self.strategy, batches.repeat())

    @property
    def _held_out_steps(self):
        return math.ceil(self.source.validation.size / self.config.batch_size)

    @property
    def _callbacks(self):
        # The average goes first, so that checkpoints hold the weights that are trained.
        return [*([self.average] if self.average else []), self.progress]

    def _fit(self, last_epoch, steps, batches=None):
        batches = self._training_batches() if batches is None else batches
        self.trainee.fit(
            distribute(self.strategy, batches),
            epochs=last_epoch,
            initial_epoch=self.progress.step // self.steps,
            steps_per_epoch=steps,
            validation_data=self._held_out(),
            validation_steps=self._held_out_steps,
            shuffle=False,  # the batches are shuffled already; Keras warns otherwise
            callbacks=self._callbacks,
            verbose="auto" if self.folder is not None else 0,
        )

    def finish(self):
        """Saves and exports the final weights, once."""
        last = self.log.rows[-1]
        results = {name: last[f"val_{name}"] for name in ("loss", "accuracy", "top5_accuracy")}
        if self.average:
            self.average.take_place()
        model = build_model(self.config, self.source, weights=None)
        copy_weights(self.model, model)
        result = {**results, "model": model, "source": self.source, "history": self.log.rows}
        if self.folder is None:
            return {**result, "export": None}
        self.log.finish()
        return {**result, "export": self._export(model, results)}

    def _export(self, model, results):
        written = self.folder / "result.json"
        if written.exists() and self.config.resume:
            export = json.loads(written.read_text(encoding="utf-8"))["export"]
            if pathlib.Path(export).is_dir():
                return export
        with write_atomically(self.folder / "model.keras") as aside:
            model.save(aside)
        export = export_saved_model(
            model,
            self.folder / "export",
            labels=self.source.class_names,
            crop_ratio=self.crop_ratio,
            exif_orientation=self.config.exif_orientation,
        )
        write_json(written, {**results, "export": str(export)})
        return export
