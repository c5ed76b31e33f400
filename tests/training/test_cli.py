"""The command: what it checks, says and refuses."""

import dataclasses
import os
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import sources
from keras_crossvit.training import cli, main
from keras_crossvit.training.checkpoints import write_checkpoint
from tests.training.tiny import RECIPE

pytestmark = pytest.mark.slow


@pytest.fixture
def train(tmp_path, monkeypatch):
    """`recipes/train.py` with the tiny recipe, in this process; returns its result."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return main({"tiny": RECIPE}, ["--recipe", "tiny", "--data-dir", "data", *arguments])

    return run


def refusal(run, *arguments):
    """The message that a run ends with."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    return str(ended.value.code)


def test_the_console_script_starts_itself_again(monkeypatch, capsys):
    started = []
    script = ["bin/crossvit", "train", "--recipe", "tiny"]
    monkeypatch.setattr(sys, "orig_argv", ["python", *script])
    monkeypatch.setattr(sys, "argv", ["bin/crossvit train", "--recipe", "tiny"])
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    monkeypatch.setenv(cli._RESTARTS, "2")
    cli._start_again(ConnectionError(), 10)
    again = [sys.executable, *script, "--set", "resume=true"]
    assert started == [(sys.executable, again)]
    assert os.environ[cli._RESTARTS] == "3"
    assert "A worker was lost (ConnectionError)" in capsys.readouterr().out


def test_dry_run_checks_everything_and_writes_nothing(train, tmp_path, capsys):
    assert train("--dry-run", "--set", "weight_decay=0.25") is None
    printed = capsys.readouterr().out
    assert '"weight_decay": 0.25' in printed
    model = "model: 0.04 million parameters"
    for line in (
        model,
        "memory of a replica, estimated",
        "digits, 10 classes, 176 images to train on, 50 held out; 11 steps an epoch, 22 in all",
        "a training batch: images (16, 40, 40, 3)",
        "labels (16, 10)",
        "a held-out batch: images (16, 40, 40, 3), of which 16 can be read",
    ):
        assert line in printed
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    write_checkpoint(tmp_path / "run" / "checkpoints", 5, {"a": np.zeros(1)}, {"step": 5})
    RECIPE.save(tmp_path / "run" / "config.json")
    message = refusal(train, "--dry-run", "--set", "weight_decay=0.1")
    assert "`output_dir` holds a run with other values" in message
    (tmp_path / "run.txt").write_text("")
    message = refusal(train, "--dry-run", "--output-dir", str(tmp_path / "run.txt"))
    assert message.endswith(f"Received: {tmp_path / 'run.txt'}, which is a file")
    memory = re.search(r"estimated: (.+) MB = (.+) MB of weights, .* \+ (.+) MB of act", printed)
    whole, variables, activations = map(float, memory.groups())
    assert min(variables, activations) > 0.1
    assert whole == pytest.approx(variables + activations, abs=0.011)


def test_values_that_do_not_fit_the_data(train):
    assert "`batch_size` must be at most the 176" in refusal(train, "--batch-size", "200")
    message = refusal(train, "--set", "accumulation_steps=3")
    assert "`accumulation_steps` must divide the 16 rows" in message
    message = refusal(train, "--set", "mixing_batch_size=5")
    assert "`mixing_batch_size` must divide" in message
    message = refusal(train, "--set", "validation_split=held_out")
    assert "`validation_split` must name a split of the dataset digits: train, test" in message


def test_an_unknown_model_leaves_no_folder(train, tmp_path):
    message = refusal(train, "--model", "crossvit_digit")
    assert "Received: model='crossvit_digit'. Did you mean 'crossvit_digits'?" in message
    assert not (tmp_path / "run").exists()


def test_what_is_refused_leaves_an_earlier_run_as_it_was(train, tmp_path):
    """Also what is found out only when the model is made."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.keras").write_text("of an earlier run")
    for values, message in [
        ([], "`weights` must be"),
        (["--set", "weights=null", "teacher=crossvit_9"], "`teacher` must be a .keras file"),
        (["--set", "freeze_stages=2"], "`freeze_stages` must be one of 0, 1. Received: freeze_st"),
        (
            ["--set", "augment=reference", "translation=0.5"],
            "`translation` must be 0 with augment",
        ),
    ]:
        assert message in refusal(train, "--no-resume", "--weights", "imagnet", *values)
        assert {path.name for path in folder.iterdir()} <= {"model.keras", ".lock"}


def test_what_is_refused_leaves_no_folder(train, tmp_path):
    """Neither one that the run made, nor a lock in one that was there."""
    assert "`weights` must be" in refusal(train, "--weights", "imagnet")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    assert "`weights` must be" in refusal(train, "--weights", "imagnet")
    assert [*(tmp_path / "run").iterdir()] == []


def test_diverged_run_says_so_and_keeps_its_checkpoints(train, tmp_path):
    values = ["learning_rate=1e30", "warmup_epochs=0", "clip_norm=null", "checkpoint_steps=1"]
    message = refusal(train, "--epochs", "1", "--set", *values)
    assert "The loss is no longer a finite number, in epoch 1, step" in message
    assert list((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))


def test_label_outside_of_the_classes(train, monkeypatch):
    opened = sources.open_source("digits", "data", "train[:32]", "test[:16]")
    names, images, labels = opened.train.read(range(32))
    train_split = sources.MemorySplit(images, labels - 1, names)
    broken = sources.Source("broken", opened.class_names, train_split, opened.validation)
    for module in ("run", "dry_run"):
        path = f"keras_crossvit.training.{module}.open_data"
        monkeypatch.setattr(path, lambda config: broken)
    monkeypatch.setattr("keras_crossvit.training.dry_run._print_model", lambda *_: None)
    short = "--epochs", "1", "--set", "warmup_epochs=0"
    for arguments in (short, ("--dry-run",)):
        message = refusal(train, *arguments)
        assert "`dataset` must have labels of its classes alone. Received: digits" in message


def test_a_folder_with_broken_files_is_trained_to_the_end(train, tmp_path, caplog, capsys):
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("validation", 5)):
        for name in ("ant", "bee"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 128, (30, 50, 3)) + 127 * (name == "bee")
                picture = tf.io.encode_jpeg(pixels.astype("uint8")).numpy()
                (folder / f"{number}.jpg").write_bytes(picture)
    broken = tmp_path / "pictures" / "train" / "ant" / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "pictures" / "validation" / "bee" / "4.jpg").write_bytes(b"no picture")
    dataset = f"folder:{tmp_path / 'pictures'}"
    values = ["warmup_epochs=0", "train_split=train", "validation_split=validation"]
    result = train("--dataset", dataset, "--epochs", "1", "--set", *values)
    named = [record.args[1] for record in caplog.records if "skipped" in record.message]
    assert sorted(named) == [
        str(tmp_path / "pictures" / "train" / "ant" / "0.jpg"),
        str(tmp_path / "pictures" / "validation" / "bee" / "4.jpg"),
    ]
    # Nine held-out images can be read, so the accuracy is in whole ninths.
    ninths = result["accuracy"] * 9
    assert ninths == pytest.approx(round(ninths), abs=1e-4)
    assert "SavedModel: run/export/1" in capsys.readouterr().out
    columns = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert columns == "epoch,learning_rate,loss,accuracy,val_loss,val_accuracy"
    message = refusal(train, "--dataset", dataset, "--set", "best=val_top5_accuracy", *values)
    assert "`best` must be 'val_accuracy' or 'val_loss' with at most five classes" in message


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"not utf-8 \xff")])
def test_class_names_that_no_export_can_hold(name, train, tmp_path):
    for split in ("train", "validation"):
        for folder in (tmp_path / "images" / split / name, tmp_path / "images" / split / "ant"):
            folder.mkdir(parents=True)
            (folder / "0.jpg").write_bytes(b"")
    splits = ["train_split=train", "validation_split=validation"]
    message = refusal(train, "--dataset", f"folder:{tmp_path / 'images'}", "--set", *splits)
    assert "`dataset` must have class names that can be written in one line" in message
    assert repr(name) in message
    assert not (tmp_path / "run").exists()


def test_a_split_of_which_nothing_can_be_read(train, tmp_path):
    for split in ("train", "validation"):
        for name in ("ant", "bee"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                (folder / f"{number}.jpg").write_bytes(b"no image")
    dataset = f"folder:{tmp_path / 'images'}"
    values = ["warmup_epochs=0", "train_split=train", "validation_split=validation"]
    message = refusal(train, "--dataset", dataset, "--epochs", "1", "--set", *values)
    assert "`train_split` must hold images that can be read" in message
    assert "whose 16 are all damaged" in message
    assert not (tmp_path / "run" / "export").exists()


def test_control_c_says_how_to_go_on(train, monkeypatch, capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "train", interrupted)
    assert refusal(train) == "130"
    said = capsys.readouterr().err
    assert "goes on from the last checkpoint in" in said
    assert "Traceback" not in said


def test_the_end_of_a_run_names_its_best_epoch(monkeypatch, capsys):
    """Counted from 1, as the progress bar does."""
    found = ("held_out.png", "ant", [("bee", 0.5)])
    monkeypatch.setattr(cli, "classify_held_out_picture", lambda *arguments: found)
    config = dataclasses.replace(RECIPE, output_dir="run", best="val_accuracy")
    result = {"source": None, "export": "run/export/1", "accuracy": 0.6154}
    cli._print_summary(config, {**result, "best_epoch": 8, "best_val_accuracy": 0.8462})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "held-out accuracy: 61.54% top-1",
        f"best val_accuracy: 0.8462 in epoch 9, {os.path.join('run', 'best.keras')}",
        "SavedModel: run/export/1",
        "the SavedModel on held_out.png: bee (50.0%); it is ant",
    ]


def test_a_damaged_export_of_a_finished_run_is_named(train, monkeypatch, tmp_path):
    (tmp_path / "export" / "1").mkdir(parents=True)
    (tmp_path / "export" / "1" / "saved_model.pb").write_bytes(b"")
    result = {"source": None, "export": str(tmp_path / "export" / "1"), "accuracy": 1.0}
    monkeypatch.setattr(cli, "train", lambda config: result)
    message = refusal(train)
    assert message.startswith("ValueError: `output_dir` must hold a whole SavedModel; without it,")
    assert f"Received: {result['export']}, which cannot be read: " in message
    assert "\n" not in message


def test_a_process_alone_does_not_wait_for_others(train, monkeypatch):
    def fail(config):
        raise tf.errors.UnavailableError(None, None, "the bucket is away")

    monkeypatch.setattr(cli, "train", fail)
    assert refusal(train) == "UnavailableError: the bucket is away"
