"""How far a run is: sums in the order of the steps, and the way back to a checkpoint."""

import dataclasses
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.training.log import RunLog
from keras_crossvit.training.progress import Progress
from tests.base import skip_without
from tests.training.tiny import RECIPE, STEPS


def row(loss, right=4):
    """What a step of 16 rows returns."""
    return np.array([[16 * loss, right, 2 * right, 16, 0]], "float32")


def restored(notes, arrays=None, **changes):
    config = dataclasses.replace(RECIPE, **changes)
    progress = Progress(config, 176 // config.batch_size)
    before = {"batch_size": 16, "steps_per_epoch": STEPS, "epochs": 2, **notes}
    progress.restore(before, {} if arrays is None else arrays)
    return progress


def test_sums_do_not_depend_on_when_they_are_looked_at():
    often, once = Progress(RECIPE, STEPS), Progress(RECIPE, STEPS)
    for step in range(5):
        often.add(row(0.1 * step), 1)
        assert not often.look()
        once.add(row(0.1 * step), 1)
    once.look()
    assert once.totals == often.totals
    assert once.totals.means == pytest.approx(
        {"loss": 0.2, "accuracy": 0.25, "top5_accuracy": 0.5}
    )


def test_an_epoch_without_an_image_that_could_be_read_has_no_means():
    progress = Progress(RECIPE, STEPS)
    progress.add(np.zeros((2, 5), "float32"), 2)
    progress.look()
    assert np.isnan([*progress.totals.means.values()]).all()


def test_images_per_second_are_those_since_the_first_look_of_the_epoch(monkeypatch):
    """The first steps, which may be compiled, do not count; nor does the time between epochs."""
    clock = iter([100.0, 102.0, 300.0, 301.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    progress, found = Progress(RECIPE, STEPS), []
    for count in (1, 10):
        progress.add(np.repeat(row(1.0), count, 0), count)
        progress.look()
        found.append(progress.speed)
    progress.begin_epoch()
    found.append(progress.speed)
    for count in (4, 7):
        progress.add(np.repeat(row(1.0), count, 0), count)
        progress.look()
        found.append(progress.speed)
    assert found == [{}, {"images/s": 80.0}, {}, {}, {"images/s": 112.0}]


def test_a_process_that_wants_to_end_is_seen():
    progress = Progress(RECIPE, STEPS)
    progress.add(np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 2]], "float32"), 2)
    assert progress.look()


def test_the_step_that_diverged_is_named_however_late_it_is_looked_at():
    progress = restored({"step": 12, "totals": [1, 1, 1, 16]})
    for loss in (1.0, np.nan, 1.0):
        progress.add(row(loss), 1)
    with pytest.raises(FloatingPointError, match="in epoch 2, step 3"):
        progress.look()


def test_running_means_of_version_0_1():
    """Total and count of loss, top-1 and top-5, which are taken out of the arrays."""
    values = [40.0, 16.0, 4.0, 16.0, 8.0, 16.0]
    arrays = {f"mean {i:02d}": np.float32(value) for i, value in enumerate(values)}
    arrays["model 0000 kernel"] = np.zeros(2)
    progress = restored({"step": 1}, arrays)
    assert list(arrays) == ["model 0000 kernel"]
    assert progress.totals.means == {"loss": 2.5, "accuracy": 0.25, "top5_accuracy": 0.5}


@pytest.mark.parametrize(
    ("step", "batch_size", "reached", "kept"),
    [
        (13, 16, 13, True),
        (13, 8, 26, True),  # two steps of 16 images into the second epoch
        (12, 32, 5, False),  # less than a step into it: the epoch starts afresh
        (22, 8, 44, True),  # cut off in the evaluation, which is still owed
    ],
)
def test_another_batch_size(step, batch_size, reached, kept):
    notes = {"step": step, "totals": [16.0, 4.0, 8.0, 16.0]}
    progress = restored(notes, batch_size=batch_size, mixing_batch_size=8)
    assert progress.step == reached
    assert progress.totals.rows == (16.0 if kept else 0.0)


@pytest.mark.parametrize(
    ("before", "step", "reached"),
    [
        (4, 10, 24),  # two steps into the third epoch, and there now
        (22, 35, 21),  # 13 steps into the second: as far as an epoch goes now, less its last step
        (22, 44, 22),  # cut off in the evaluation of the second
    ],
)
def test_other_data(before, step, reached):
    notes = {"step": step, "steps_per_epoch": before, "totals": [16.0, 4.0, 8.0, 16.0]}
    assert restored(notes).step == reached


@pytest.fixture
def log(tmp_path):
    """Of two epochs, of which the first is too short for a speed."""
    log = RunLog(tmp_path, learning_rate=lambda step: 0.5 * step)
    log.add(0, {"loss": 2.0, "val_loss": 3.0}, 4)
    log.add(1, {"loss": 1.0, "val_loss": 2.5, "images/s": 80.0}, 9)
    return log


def test_the_table_has_the_columns_of_all_epochs(log):
    lines = (log.folder / "log.csv").read_text().splitlines()
    columns = "epoch,learning_rate,loss,val_loss,images/s"
    assert lines == [columns, "0,2.0,2.0,3.0,", "1,4.5,1.0,2.5,80.0"]


def test_the_curves_of_tensorboard(log):
    skip_without("tensorboard")
    log.show_batch(lambda: np.full((6, 2, 3, 3), 300.0))
    wanted = {
        "train": {
            **{("learning_rate", 1): 2.0, ("learning_rate", 2): 4.5},
            **{("loss", 1): 2.0, ("loss", 2): 1.0, ("images/s", 2): 80.0},
        },
        "validation": {("loss", 1): 3.0, ("loss", 2): 2.5},
    }
    for run, values in wanted.items():
        (path,) = (log.folder / "tensorboard" / run).iterdir()
        found, events = {}, tf.compat.v1.train.summary_iterator(str(path))
        for event in events:
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
        if run == "train":
            width, height, grid = found.pop(("augmented", 0))
            assert (int(width), int(height)) == (4 * 3, 2)  # six are a row of four and no more
            assert (tf.io.decode_png(grid).numpy() == 255).all()
        assert found == values


@pytest.mark.parametrize(("epochs", "ended"), [(2, True), (3, False)])
def test_an_end_by_a_hook_holds_for_its_number_of_epochs(epochs, ended):
    notes = {"step": 11, "totals": [0, 0, 0, 0], "ended": True}
    assert restored(notes, epochs=epochs).ended is ended
