"""A run that is ended in any way goes on, to the same weights bit for bit."""

import csv
import json
import signal

import keras
import numpy as np
import pytest

from keras_crossvit.training import main
from keras_crossvit.training.preemption import Preempted
from keras_crossvit.training.progress import Progress
from tests.training.processes import finish, run, started, wait_for, weights
from tests.training.tiny import RECIPE

VALUES = {"output_dir": "run", "checkpoint_steps": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def values(folder):
    return {**VALUES, "data_dir": str(folder / "data")}


@pytest.fixture(scope="module")
def undisturbed(folder, values):
    """Weights and table of a run that was never ended."""
    output = run(folder / "undisturbed", values)
    assert "Going on" not in output
    return weights(folder / "undisturbed"), table(folder / "undisturbed")


def table(folder):
    """The rows of the log, but for the speed."""
    with open(folder / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "images/s"} for row in rows]


def steps(folder):
    """Steps of the checkpoints that are there."""
    paths = (folder / "run" / "checkpoints").glob("step-*")
    return sorted(int(path.name.removesuffix(".safetensors").partition("-")[2]) for path in paths)


def tear_last(folder):
    path = folder / "run" / "checkpoints" / f"step-{steps(folder)[-1]:09d}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.main_job
def test_killed_terminated_and_torn(folder, values, undisturbed):
    here = folder / "disturbed"
    with started(here, values) as process:
        wait_for(lambda: 3 in steps(here) and 6 in steps(here), process, here)
        process.send_signal(signal.SIGKILL)
        process.wait()
    tear_last(here)  # the one before is used
    with started(here, values) as process:
        wait_for(lambda: (steps(here) or [0])[-1] >= 12, process, here)
        process.send_signal(signal.SIGTERM)
        output = finish(process, here, status=143)
    assert "is torn and is passed over" in output
    assert "SIGTERM after step" in output
    assert "The same command goes on from there" in output
    output = run(here, values)
    assert f"Going on after step {output.rpartition('SIGTERM after step ')[2].split(':')[0]}" in (
        output
    )
    expected, rows = undisturbed
    for ours, theirs in zip(weights(here), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert table(here) == rows
    assert [path.name for path in (here / "run" / "export").iterdir()] == ["1"]


@pytest.mark.main_job
@pytest.mark.parametrize("moment", ["on_test_batch_end", "on_epoch_end"])
def test_preempted_around_a_validation(moment, folder, values, undisturbed, monkeypatch):
    """The epoch's figures are those of its steps, not of what its variables held by then."""
    here = folder / moment
    here.mkdir()
    monkeypatch.chdir(here)
    command = ["--recipe", "tiny", "--set"]
    command += [f"{name}={json.dumps(value)}" for name, value in values.items()]

    usual = getattr(Progress, moment)

    def preempt(self, *arguments, **logs):
        self.preempted.set()
        usual(self, *arguments, **logs)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, moment, preempt)
        with pytest.raises(Preempted) as ended:
            main({"tiny": RECIPE}, command)
    assert ended.value.code == 143
    assert steps(here)[-1] == 11
    result = main({"tiny": RECIPE}, command)
    for ours, theirs in zip(result["model"].weights, undisturbed[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert table(here) == undisturbed[1]


@pytest.mark.main_job
def test_a_finished_run_only_says_so_and_other_values_are_refused(folder, values, undisturbed):
    here = folder / "undisturbed"
    output = run(here, {**values, "batch_size": 8}, status=1)
    assert "`output_dir` holds a run with other values" in output
    assert "batch_size=16" in output
    before = (here / "run" / "model.keras").read_bytes()
    run(here, {**values, "parallel_calls": 1})  # decides nothing of the course
    assert (here / "run" / "model.keras").read_bytes() == before
    assert [path.name for path in (here / "run" / "export").iterdir()] == ["1"]
    result = json.loads((here / "run" / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(float(table(here)[-1]["val_accuracy"]))
    model = keras.saving.load_model(here / "run" / "model.keras", compile=False)
    for variable, value in zip(model.weights, undisturbed[0], strict=True):
        np.testing.assert_array_equal(variable, value)
