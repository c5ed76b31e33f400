"""A run that ends in any way resumes, and reaches the same weights bit for bit."""

import csv
import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest

from keras_crossvit.models import CrossViTConfig
from keras_crossvit.training import finish, main, parse_config, run, train
from keras_crossvit.training.checkpoints import read_last_checkpoint
from keras_crossvit.training.preemption import Preempted
from keras_crossvit.training.steps.tensorflow import TensorFlowStep
from tests.training.processes import started, wait_for
from tests.training.tiny import RECIPE

VALUES = {"output_dir": "run", "checkpoint_steps": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def values(folder):
    return {**VALUES, "data_dir": str(folder / "data")}


@pytest.fixture
def here(folder, monkeypatch):
    """Runs in a folder of its own, and without an export, which takes longer than the run."""
    monkeypatch.setattr(finish, "export_saved_model", _pretend_to_export)

    def enter(name):
        (folder / name).mkdir(exist_ok=True)
        monkeypatch.chdir(folder / name)
        return folder / name

    return enter


def _pretend_to_export(model, directory, **arguments):
    version = directory / "1"
    version.mkdir(parents=True, exist_ok=True)
    return version


def command(values, **changes):
    settings = {**values, **changes}.items()
    return ["--recipe", "tiny", "--set", *(f"{name}={json.dumps(v)}" for name, v in settings)]


def go(values, **hooks):
    """A run in this process, from its command line."""
    config, _ = parse_config({"tiny": RECIPE}, command(values))
    return train(config, **hooks)


def end():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def undisturbed(folder, values):
    """Weights and table of an uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "export_saved_model", _pretend_to_export)
        (folder / "undisturbed").mkdir()
        patch.chdir(folder / "undisturbed")
        seen = {"steps": [], "epochs": []}
        result = go(
            values,
            on_step=lambda step, means: seen["steps"].append((step, sorted(means))),
            on_epoch=lambda row, model: seen["epochs"].append((row["epoch"], model.name)),
        )
    assert [step for step, _ in seen["steps"]] == [3, 6, 9, 10, 11, 12, 15, 18, 20, 21, 22]
    assert {tuple(names) for _, names in seen["steps"]} == {("accuracy", "loss", "top5_accuracy")}
    assert seen["epochs"] == [(0, "tiny_test_model"), (1, "tiny_test_model")]
    return weights_of(result), table(folder / "undisturbed")


def weights_of(result):
    return [np.array(variable) for variable in result["model"].weights]


def table(folder):
    """The rows of the log, without the speed."""
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
def test_killed_torn_and_preempted(folder, values, undisturbed, here, caplog, capsys, monkeypatch):
    """By SIGKILL, with the last checkpoint torn, by SIGTERM in an epoch and in an evaluation, to
    this process or to another of its run.
    """
    place = here("disturbed")
    with started(place, values, TINY_EXPORT="0") as process:
        wait_for(lambda: len(steps(place)) == 2, process, place)
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = place / "run" / ".writing-abc.csv"
    left.write_text("half of a table")
    tear_last(place)  # the one before is used
    with pytest.raises(Preempted) as ended:
        go(values, on_step=lambda step, means: end())
    assert ended.value.code == 143
    assert not left.exists()
    assert "is torn and is skipped" in caplog.text
    printed = capsys.readouterr().out
    assert "The same command goes on from there" in printed
    reached = int(printed.rpartition("SIGTERM after step ")[2].partition(":")[0])
    assert steps(place)[-1] == reached

    usual = TensorFlowStep.evaluate
    disturbed = {
        reached: lambda self, *given: (end(), usual(self, *given))[1],
        11: lambda self, batches, stop: usual(self, batches, True),  # as if another process asked
    }
    for step, evaluate in disturbed.items():
        with monkeypatch.context() as patch:
            patch.setattr(TensorFlowStep, "evaluate", evaluate)
            with pytest.raises(Preempted):
                go(values)
        assert f"Going on after step {step}." in capsys.readouterr().out
        assert steps(place)[-1] == 11

    result = go(values)
    for ours, theirs in zip(weights_of(result), undisturbed[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert table(place) == undisturbed[1]


@pytest.mark.main_job
def test_a_finished_run(folder, values, undisturbed, here, caplog, capsys):
    """It says so; keeps what is whole and mends what is not; can be extended."""
    place = here("undisturbed")
    with pytest.raises(SystemExit, match=r"holds a run with other values.*weight_decay=0\.05"):
        main({"tiny": RECIPE}, command(values, weight_decay=0.1))
    recorded = (place / "run" / "config.json").read_bytes()
    message = r"`epochs` must be at least 2, which the run in run has begun. Received: epochs=1$"
    with pytest.raises(SystemExit, match=message):
        main({"tiny": RECIPE}, command(values, epochs=1, warmup_epochs=0))
    assert (place / "run" / "config.json").read_bytes() == recorded
    design = read_last_checkpoint(place / "run" / "checkpoints")[1]["design"]
    assert design == dataclasses.asdict(CrossViTConfig.preset(RECIPE.model))
    saved, result = place / "run" / "model.keras", place / "run" / "result.json"
    before = saved.read_bytes()
    capsys.readouterr()
    go({**values, "parallel_calls": 1})  # has no effect on the course
    assert "The training is done after step 22." in capsys.readouterr().out
    assert saved.read_bytes() == before
    written = json.loads(result.read_text())
    assert written["accuracy"] == pytest.approx(float(table(place)[-1]["val_accuracy"]))
    assert written["export"] == "run/export/1"
    shutil.copytree(place / "run", place / "copy")
    assert go({**values, "output_dir": "copy"})["export"] == "copy/export/1"

    saved.write_bytes(before[:1000])
    (place / "run" / "config.json").write_text("")
    go(values)
    assert "config.json is broken and is written anew" in caplog.text
    assert json.loads((place / "run" / "config.json").read_text())["epochs"] == 2
    model = keras.saving.load_model(saved, compile=False)
    for variable, value in zip(model.weights, undisturbed[0], strict=True):
        np.testing.assert_array_equal(variable, value)

    capsys.readouterr()
    more = {"epochs": 3, "batch_size": 8, "mixing_batch_size": 8, "best": "val_accuracy"}
    result = go({**values, **more})
    assert "epochs goes on as 3 instead of 2: the learning rate follows" in caplog.text
    assert "batch_size goes on as 8 instead of 16: from here on steps and" in caplog.text
    assert "Going on after step 44." in capsys.readouterr().out
    assert [row["epoch"] for row in result["history"]] == [0, 1, 2]
    assert steps(place)[-1] == 66
    assert result["best_epoch"] == 2  # of the epochs since the best is kept
    assert (place / "run" / "best.keras").is_file()
    changed = [
        np.abs(a - b).max() for a, b in zip(weights_of(result), undisturbed[0], strict=True)
    ]
    assert max(changed) > 1e-4


def test_two_runs_in_one_folder(values, here):
    """The second is told who is using the folder, and changes nothing."""
    place = here("shared")
    config, _ = parse_config({"tiny": RECIPE}, command(values))
    with run.run_folder(config, writes=True):
        with pytest.raises(SystemExit, match=f"run, where process {os.getpid()} on .* trains"):
            main({"tiny": RECIPE}, command(values))
        assert {path.name for path in (place / "run").iterdir()} == {".lock", ".owner"}


@pytest.mark.parametrize("kind", ["output_dir", "checkpoints"])
def test_a_file_in_the_place_of_a_folder(kind, values, here):
    place = here(kind)
    if kind == "output_dir":
        (place / "run").write_text("")
    else:
        (place / "run").mkdir()
        (place / "run" / "checkpoints").write_text("")
    message = "`output_dir` must be a folder. Received: run, which is a file"
    with pytest.raises(SystemExit, match=message if kind == "output_dir" else "ExistsError"):
        main({"tiny": RECIPE}, command(values, epochs=1, warmup_epochs=0))
