"""A run between its steps: epochs that end, hooks, the best epoch, and what it leaves."""

import contextlib
import dataclasses
import functools
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training import assembly, classify_held_out_picture
from keras_crossvit.training import run as run_module
from keras_crossvit.training.log import RunLog
from keras_crossvit.training.preemption import StopRequest, watch_for_preemption
from keras_crossvit.training.progress import Progress
from keras_crossvit.training.run import Run
from keras_crossvit.training.steps import Step, Totals
from tests.base import small_config
from tests.training.tiny import RECIPE, STEPS, data


def at_the_end_of_an_epoch(rows=(), **attributes):
    """A `Run` that has done the steps of its first epoch, and as yet has these rows of the log."""
    run = object.__new__(Run)
    progress = Progress(RECIPE, STEPS, step=STEPS)
    log = types.SimpleNamespace(rows=[*rows], add=None)
    common = {"config": RECIPE, "progress": progress, "log": log, "steps": STEPS, "folder": "run"}
    common["design"] = CrossViTConfig.preset(RECIPE.model)
    run.__dict__.update({**common, "metrics": ["loss"], **attributes})
    return run


def log_when_it_evaluates(run, row):
    """Puts this row in the place of an evaluation."""

    def evaluate(batches, bar, stop):
        run.log.rows.append(row)
        return row

    run._evaluate = evaluate


@pytest.mark.parametrize(("rows", "epoch"), [([], 1), ([{}], 2)])
def test_the_epoch_that_is_printed_is_that_of_the_next_row(rows, epoch, capsys):
    at_the_end_of_an_epoch(rows)._bar()
    assert capsys.readouterr().out == f"Epoch {epoch}/2\n"


@pytest.mark.parametrize("stops", [0, 1])
def test_held_out_images_on_which_the_model_diverged_are_no_result(stops):
    """And nothing to save, even if a process is to end."""
    sums = np.array([np.nan, 0, 0, 16, stops])
    step = types.SimpleNamespace(evaluate=lambda batches, stop: sums)
    run = at_the_end_of_an_epoch(step=step, source=data(validation=16), save=None)
    run.progress.totals = Totals(1, 1, 1, 16)
    message = "The validation loss is no longer a finite number, in epoch 1, step 11"
    with pytest.raises(FloatingPointError, match=message):
        run._evaluate(None, None, StopRequest())


@pytest.mark.parametrize(("readable", "message"), [(9, None), (7, "1125 held-out images")])
def test_held_out_images_of_which_most_are_away_give_no_figures(readable, message):
    """Those of the few that are left could be the best for good. The epoch's training counts."""
    saved = []
    sums = np.array([10.0, 4, 5, readable, 0])
    step = types.SimpleNamespace(evaluate=lambda batches, stop: sums, several_labels=False)
    log = RunLog(None, learning_rate=lambda step: 0.5)
    run = at_the_end_of_an_epoch(step=step, source=data(validation=2000), log=log)
    run.save = lambda: saved.append(run.progress.step)
    run.progress.totals = Totals(1, 1, 1, 16)
    bar = types.SimpleNamespace(update=lambda *values, **options: None)
    if message is None:
        assert run._evaluate(None, bar, StopRequest())["val_loss"] == pytest.approx(10 / readable)
        return
    with pytest.raises(OSError, match=f"^folder:pets cannot be read: {message} could not be"):
        run._evaluate(None, bar, StopRequest())
    assert not run.log.rows
    assert saved == [STEPS]


@pytest.mark.parametrize("several", [False, True])
def test_training_does_not_go_on_without_images(several):
    """Weight decay alone would undo what was learnt; of several labels an image may have none."""
    sums = [np.array([[16.0, 4, 8, 16, 0]])] * 7 + [np.array([[0.0, 0, 0, 0, 0]])] * 93
    sums[6:6] = [sums[-1]] * 60  # fewer than 1,000 images
    rows = iter(sums)
    step = types.SimpleNamespace(
        train=lambda batches, count, stop: next(rows), feed=list, several_labels=several
    )
    run = at_the_end_of_an_epoch(step=step, source=data(), steps=1000, look=1)
    run._held_out_batches = ()
    run.progress, run.alone = Progress(RECIPE, 1000), True
    run._training_batches = lambda: None
    run._bar = lambda: types.SimpleNamespace(update=lambda *values: None)
    with pytest.raises(StopIteration if several else OSError) as error:
        run.fit(StopRequest())
    if not several:
        assert "folder:pets cannot be read: the last 1008 images could not be" in str(error.value)
    assert run.progress.step == (160 if several else 67 + 63)


def test_the_learning_rate_of_a_row_is_that_of_its_last_step():
    """Steps are counted from 0, so the eleventh is step 10."""
    step = types.SimpleNamespace(
        evaluate=lambda batches, stop: np.array([32.0, 4, 8, 16, 0]), several_labels=False
    )
    log = RunLog(None, learning_rate=lambda step: 0.5 * step)
    run = at_the_end_of_an_epoch(step=step, source=data(validation=16), log=log)
    run.progress.totals = Totals(16, 4, 8, 16)
    bar = types.SimpleNamespace(update=lambda *values, **options: None)
    row = run._evaluate(None, bar, StopRequest())
    assert row == {"epoch": 0, "learning_rate": 5.0, "loss": 1.0, "val_loss": 2.0}


def test_a_hook_is_given_the_model_that_was_measured():
    """With the average, if there is one; on JAX its variables are those of the last `sync`."""
    calls = []

    def hook(row, model):
        calls.append(model)
        return True

    @contextlib.contextmanager
    def averaged():
        with Step.averaged(step):
            calls.append("averaged")
            yield
        calls.append("back")

    sync = functools.partial(calls.append, "sync")
    step = types.SimpleNamespace(
        model="model",
        average=None,
        sync=sync,
        feed=list,
        averaged=averaged,
        check_trained=functools.partial(calls.append, "checked"),
    )
    run = at_the_end_of_an_epoch(step=step, _held_out_batches=())
    log_when_it_evaluates(run, {"val_loss": 1.0})
    run._keep_best = run.save = run._training_batches = run._bar = lambda: None
    run.fit(StopRequest(), on_epoch=hook)
    assert calls == ["sync", "averaged", "model", "back", "checked"]
    assert run.progress.ended


def test_what_a_hook_does_to_its_row_is_not_in_the_log():
    """Taking the epoch out of it, as trackers want a step apart, cost the curves and the run."""

    def hook(row, model):
        row["mine"] = np.float32(row.pop("epoch"))  # of a type that no checkpoint holds

    step = types.SimpleNamespace(model=None, feed=list, averaged=contextlib.nullcontext)
    step.check_trained = lambda: None
    run = at_the_end_of_an_epoch(step=step, _held_out_batches=())
    run.config = dataclasses.replace(RECIPE, epochs=1, warmup_epochs=0)
    log_when_it_evaluates(run, {"epoch": 0, "val_loss": 1.0})
    run._keep_best = run.save = run._training_batches = run._bar = lambda: None
    run.fit(StopRequest(), on_epoch=hook)
    assert run.log.rows == [{"epoch": 0, "val_loss": 1.0}]


def test_an_error_of_a_hook_does_not_cost_the_epoch():
    def hook(row, model):
        raise ConnectionError("the tracker is away")

    saved = []
    step = types.SimpleNamespace(model=None, feed=list, averaged=contextlib.nullcontext)
    run = at_the_end_of_an_epoch(step=step, _held_out_batches=())
    log_when_it_evaluates(run, {"val_loss": 1.0})
    run._keep_best = run._training_batches = run._bar = lambda: None
    run.save = lambda: saved.append([*run.log.rows])
    with pytest.raises(ConnectionError):
        run.fit(StopRequest(), on_epoch=hook)
    assert saved == [[{"val_loss": 1.0}]]


def test_a_hook_that_freezes_layers_ends_the_run_after_its_epoch_is_saved():
    def hook(row, model):
        model.layers[-1].trainable = False

    saved, model = [], keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    step = types.SimpleNamespace(
        model=model,
        trained=model.trainable_variables,
        feed=list,
        averaged=contextlib.nullcontext,
    )
    step.check_trained = functools.partial(Step.check_trained, step)
    run = at_the_end_of_an_epoch(step=step, _held_out_batches=())
    log_when_it_evaluates(run, {"val_loss": 1.0})
    run._keep_best = run._training_batches = run._bar = lambda: None
    run.save = lambda: saved.append([*run.log.rows])
    with pytest.raises(ValueError, match=r"`on_epoch` must .* cannot change within a run"):
        run.fit(StopRequest(), on_epoch=hook)
    assert saved == [[{"val_loss": 1.0}]]


def test_patience_counts_the_epochs_since_the_metric_changed():
    config = dataclasses.replace(RECIPE, best="val_accuracy", patience=3)
    rows = [{"val_accuracy": accuracy} for accuracy in (0.9, 0.5, 0.6, 0.7)]
    run = at_the_end_of_an_epoch(rows, config=config, best_from=2)
    assert not run._is_over()
    run.best_from = 0
    assert run._is_over()


def test_calls_of_several_steps_end_where_a_checkpoint_is_due():
    config = dataclasses.replace(RECIPE, checkpoint_steps=4, steps_per_call=3)
    run, reached = at_the_end_of_an_epoch(config=config), []
    run.progress.step = 0
    while run.progress.step < 2 * STEPS:
        run.progress.step += run._steps_until_something_is_due()
        reached.append(run.progress.step)
    assert reached == [3, 4, 7, 8, 11, 12, 15, 16, 19, 20, 22]


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ({"best": "val_accuracy", "best_from": 1}, 2),
        ({"best": "val_loss", "best_from": 1}, None),  # another is the best from here on
        ({}, 0),  # of an earlier version
    ],
)
def test_the_best_epoch_is_one_since_the_metric_changed(before, found):
    config = dataclasses.replace(RECIPE, epochs=4, best="val_accuracy")
    step = types.SimpleNamespace(restore=lambda arrays, origin: None)
    run = at_the_end_of_an_epoch(config=config, step=step, source=data(), folder=None)
    run.progress = Progress(config, STEPS)
    rows = [{"val_accuracy": accuracy, "val_loss": 1.0} for accuracy in (0.9, 0.5, 0.6)]
    notes = {**Progress(config, STEPS, step=33).notes, "log": rows}
    run.restore({}, {**notes, **before})
    assert run._best_epoch() == found
    run.log.rows.append({"val_accuracy": 0.7, "val_loss": 1.0})
    assert run._best_epoch() == (0 if found == 0 else 3)


def test_a_run_leaves_the_dtype_policy_as_it_was(monkeypatch):
    def fail(config, on_step, on_epoch):
        keras.config.set_dtype_policy(config.precision)
        raise FloatingPointError

    monkeypatch.setattr(run_module, "_train", fail)
    with pytest.raises(FloatingPointError):
        run_module.train(dataclasses.replace(RECIPE, precision="mixed_bfloat16"))
    assert keras.config.dtype_policy().name == "float32"


def test_held_out_images_and_the_export_are_turned_as_the_run_says(monkeypatch):
    found = {}

    def read(split, classes, size, batch_size, ratio, shard, turned, calls):
        found["read"] = (classes, size, batch_size, ratio, shard, turned, calls)
        return tf.data.Dataset.range(1)

    def write(folder, model, results, options, resume, data):
        found["export"] = (model, results, options, resume, data)
        return "export/1"

    monkeypatch.setattr(run_module, "evaluation_batches", read)
    monkeypatch.setattr(run_module, "write_result", write)
    config = dataclasses.replace(RECIPE, exif_orientation=False, parallel_calls=3)
    values = {"classes": 2, "size": (4, 4, 3), "crop_ratio": 0.5, "shard": None, "best_from": 0}
    step = types.SimpleNamespace(put_average_in_place=lambda: None, model=None)
    rows = [{"epoch": 0, "loss": 1.0, "val_loss": 2.0}]
    run = at_the_end_of_an_epoch(rows, config=config, source=data(), step=step, **values)
    monkeypatch.setattr(run_module, "copy_weights", lambda trained, model: None)
    model = types.SimpleNamespace()
    monkeypatch.setattr(run_module, "build_model", lambda *arguments, **values: model)
    run.log.finish = lambda: None
    assert list(run._held_out_batches) == [0]
    assert found["read"] == (2, (4, 4, 3), 16, 0.5, None, False, 3)
    assert run.finish()["export"] == "export/1"
    assert model.reading == {"crop_ratio": 0.5, "exif_orientation": False}
    options = {"labels": ("a", "b"), **model.reading}
    assert found["export"] == (model, {"loss": 2.0}, options, True, "folder:pets")


def test_parts_that_no_recipe_file_registers_are_refused_before_training_on_jax(monkeypatch):
    """The export, a process of its own, could not load them."""

    @kc.layers.register_fusion("tests_of_a_program")
    class TestsOfAProgram(kc.layers.NoFusion):
        """A fusion that a program registers itself."""

    kc.register_preset("tests_of_a_program")(small_config(fusion="tests_of_a_program"))

    def check(model):
        assembly.check_fit(dataclasses.replace(RECIPE, model=model), data(), None)

    check("tests_of_a_program")  # on TensorFlow this process exports
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(assembly, "loaded_files", list)
    check("crossvit_digits")
    message = r"^`model` must be .* with TestsOfAProgram of tests\.training\.test_run$"
    with pytest.raises(ValueError, match=message):
        check("tests_of_a_program")
    monkeypatch.setattr(assembly, "loaded_files", lambda: ["recipe.py"])
    check("tests_of_a_program")


def test_sigterm_is_taken_only_while_a_run_watches():
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(FloatingPointError), watch_for_preemption() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        raise FloatingPointError
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_labels_of_a_held_out_image(monkeypatch, tmp_path):
    """One, or several joined, of the first that can be read; the export's tests cover the rest."""

    def answer(image_bytes):
        names = ["", ""] if image_bytes[0] == b"no image" else ["bee", "ant"]
        return {"classes": tf.constant([names]), "scores": tf.constant([[0.75, 0.25]])}

    signatures = {"classify_bytes": answer}
    loaded = types.SimpleNamespace(signatures=signatures)
    monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded)
    encoded = [tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy()]
    for labels, wanted in (([0, 1], "bee"), ([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], "ant|cat")):
        split = MemorySplit([b"no image", *encoded], labels)
        source = Source("x", ("ant", "bee", "cat"), split, split)
        path, truth, ranking = classify_held_out_picture(source, "export", tmp_path)
        assert path.read_bytes() == encoded[0]
        assert truth == wanted
        assert ranking == [("bee", 0.75), ("ant", 0.25)]
