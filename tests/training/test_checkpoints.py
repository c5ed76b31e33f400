"""Checkpoints: whole or not there."""

import dataclasses
import json
import logging
import shutil
import threading

import keras
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from keras_crossvit.training import checkpoints
from keras_crossvit.training.checkpoints import (
    CheckpointWriter,
    read_last_checkpoint,
    write_checkpoint,
)
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.folder import begin_run, put_aside, run_folder
from keras_crossvit.training.resume import check_resumed, last_state
from tests.training.tiny import data

ARRAYS = {
    "kernel": np.arange(12, dtype="float32").reshape(3, 4),
    "iteration": np.array(7, dtype="int64"),
    "seed": np.array([1, 2], dtype="uint32"),
}


def make_config(folder):
    return TrainConfig(
        model="crossvit_digits",
        dataset="digits",
        output_dir=str(folder),
        batch_size=8,
        epochs=10,
        learning_rate=1e-3,
    )


def open_run(folder, config, writes):
    """The state from which a run goes on, after the process that writes has begun it."""
    state = last_state(folder, config)
    if state is not None:
        check_resumed(folder, state[1], config, data())
    if writes:
        begin_run(folder, config, resumed=state is not None)
    return state


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "new", 3, ARRAYS, {"step": 3, "log": [{"loss": 0.1}]})
    arrays, notes = read_last_checkpoint(tmp_path / "new")
    assert notes == {"step": 3, "log": [{"loss": 0.1}]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_two_are_kept(tmp_path):
    for step in (5, 10, 100):
        write_checkpoint(tmp_path, step, ARRAYS, {"step": step})
    assert files(tmp_path) == ["step-000000010.safetensors", "step-000000100.safetensors"]


def test_those_counted_in_smaller_batches_go(tmp_path):
    """Steps of an epoch are fewer after the batch size grew or the data shrank."""
    for step, epochs in ((16, 2), (24, 3), (16, 4)):
        write_checkpoint(tmp_path, step, ARRAYS, {"epochs": epochs})
    assert files(tmp_path) == ["step-000000016.safetensors"]
    assert read_last_checkpoint(tmp_path)[1] == {"epochs": 4}
    write_checkpoint(tmp_path, 20, ARRAYS, {"epochs": 5})
    assert files(tmp_path) == ["step-000000016.safetensors", "step-000000020.safetensors"]
    assert read_last_checkpoint(tmp_path)[1] == {"epochs": 5}


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """One bit of the weights."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def rename(path):
    """One letter of the name of a tensor."""
    path.write_bytes(path.read_bytes().replace(b"kernel", b"kennel"))


def renumber(path):
    """One digit of the notes."""
    path.write_bytes(path.read_bytes().replace(b'step\\": 2', b'step\\": 3'))


@pytest.mark.parametrize("spoil", [cut, empty, flip, rename, renumber])
def test_a_torn_one_is_named_and_the_one_before_is_used(tmp_path, spoil, caplog):
    write_checkpoint(tmp_path, 1, ARRAYS, {"step": 1})
    write_checkpoint(tmp_path, 2, ARRAYS, {"step": 2})
    spoil(tmp_path / "step-000000002.safetensors")
    with caplog.at_level(logging.WARNING):
        _, notes = read_last_checkpoint(tmp_path)
    assert notes == {"step": 1}
    assert "step-000000002.safetensors is torn" in caplog.text


def test_one_that_cannot_be_read_now_is_not_torn(tmp_path, monkeypatch):
    """Or the run would start afresh, and delete it."""

    def fail(path, framework):
        raise OSError(116, "Stale file handle")

    write_checkpoint(tmp_path, 1, ARRAYS, {"step": 1})
    monkeypatch.setattr(checkpoints, "safe_open", fail)
    with pytest.raises(OSError, match="Stale file handle"):
        read_last_checkpoint(tmp_path)


def test_a_write_that_was_cut_off_is_no_checkpoint(tmp_path):
    write_checkpoint(tmp_path, 1, ARRAYS, {"step": 1})
    (tmp_path / ".99.writing").write_bytes(b"half of a file")
    assert read_last_checkpoint(tmp_path)[1] == {"step": 1}


def test_none(tmp_path):
    assert read_last_checkpoint(tmp_path / "nowhere") is None


def test_put_aside_keeps_what_is_there(tmp_path):
    for number in range(2):
        write_checkpoint(tmp_path / "checkpoints", number, ARRAYS, {"step": number})
        (tmp_path / "best.keras").write_text(f"best of {number}")
        (tmp_path / "export" / str(number)).mkdir(parents=True)
        put_aside(tmp_path)
    put_aside(tmp_path)  # there is nothing left
    assert files(tmp_path) == ["before.1", "before.2", "export"]
    assert files(tmp_path / "before.1") == ["best.keras", "checkpoints"]
    assert (tmp_path / "before.2" / "best.keras").read_text() == "best of 1"
    assert read_last_checkpoint(tmp_path / "before.1" / "checkpoints")[1] == {"step": 0}


def test_a_readme_of_ones_own_is_not_put_aside(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    put_aside(tmp_path)
    assert files(tmp_path) == ["README.md"]
    write_checkpoint(tmp_path / "checkpoints", 5, ARRAYS, {"step": 5})
    put_aside(tmp_path)
    assert files(tmp_path) == ["README.md", "before.1"]
    (tmp_path / "README.md").write_text("A CrossViT (Chen, Fan and Panda, ICCV 2021).")
    put_aside(tmp_path)
    assert files(tmp_path / "before.2") == ["README.md"]


def test_only_a_run_that_begins_anew_puts_aside(tmp_path):
    config = make_config(tmp_path)
    assert open_run(tmp_path, config, writes=True) is None
    assert open_run(tmp_path, config, writes=True) is None  # killed before its first checkpoint
    write_checkpoint(tmp_path / "checkpoints", 5, ARRAYS, {"step": 5})
    for name in ("model.keras", "held_out.webp"):
        (tmp_path / name).write_text("of the first run")
    assert open_run(tmp_path, config, writes=True)[1]["step"] == 5
    written = ["checkpoints", "config.json", "held_out.webp", "model.keras"]
    assert files(tmp_path) == written
    anew = dataclasses.replace(config, resume=False, seed=5)
    assert open_run(tmp_path, anew, writes=False) is None
    assert files(tmp_path) == written
    assert open_run(tmp_path, anew, writes=True) is None
    assert files(tmp_path) == ["before.1", "checkpoints", "config.json"]
    assert files(tmp_path / "before.1") == written
    assert json.loads((tmp_path / "before.1" / "config.json").read_text())["seed"] == config.seed


def test_torn_checkpoints_are_put_aside(tmp_path):
    config = make_config(tmp_path)
    write_checkpoint(tmp_path / "checkpoints", 5, ARRAYS, {"step": 5})
    cut(tmp_path / "checkpoints" / "step-000000005.safetensors")
    assert open_run(tmp_path, config, writes=True) is None
    assert files(tmp_path / "before.1" / "checkpoints") == ["step-000000005.safetensors"]
    assert files(tmp_path / "checkpoints") == []


def test_a_resumed_run_still_describes_the_model_that_is_there(tmp_path):
    config = make_config(tmp_path)
    open_run(tmp_path, config, writes=True)
    write_checkpoint(tmp_path / "checkpoints", 5, ARRAYS, {"step": 5})
    values = json.loads((tmp_path / "config.json").read_text())
    described = {**values, "architecture": "crossvit_digits"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    more = dataclasses.replace(config, epochs=20)
    open_run(tmp_path, more, writes=True)
    assert json.loads((tmp_path / "config.json").read_text()) == {**described, "epochs": 20}


def test_a_config_json_without_values_is_completed(tmp_path):
    config = make_config(tmp_path)
    write_checkpoint(tmp_path / "checkpoints", 5, ARRAYS, {"step": 5})
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert open_run(tmp_path, config, writes=True)[1]["step"] == 5
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 8


def test_files_of_a_run_below_this_one_stay(tmp_path):
    with run_folder(make_config(tmp_path), writes=True):
        (tmp_path / "inner" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "inner" / "checkpoints", tmp_path / "checkpoints", tmp_path):
        path.mkdir(exist_ok=True)
        (path / ".writing-abc").write_text("half of a file")
    with run_folder(make_config(tmp_path), writes=True):
        assert files(tmp_path) == [".lock", ".owner", "checkpoints", "inner"]
        assert files(tmp_path / "checkpoints") == []
        assert files(tmp_path / "inner" / "checkpoints") == [".writing-abc"]
    assert files(tmp_path) == [".lock", "checkpoints", "inner"]


def test_a_folder_that_is_removed_meanwhile_hides_no_other_error(tmp_path):
    def fail():
        with run_folder(make_config(tmp_path / "run"), writes=True) as folder:
            shutil.rmtree(folder)
            raise KeyError("another")

    with pytest.raises(KeyError, match="another"):
        fail()


def test_a_model_without_checkpoints_is_put_aside(tmp_path):
    """Whoever deleted them to save space, and trains there again, loses no model."""
    config = make_config(tmp_path)
    (tmp_path / "model.safetensors").write_text("of the first run")
    assert open_run(tmp_path, config, writes=True) is None
    assert files(tmp_path) == ["before.1", "checkpoints", "config.json"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise SafetensorError("No space left on device (os error 28)")

    write_checkpoint(tmp_path, 1, ARRAYS, {"step": 1})
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match=r"step-000000002\.safetensors cannot be written: No space"):
        write_checkpoint(tmp_path, 2, ARRAYS, {"step": 2})
    assert files(tmp_path) == ["step-000000001.safetensors"]


def test_a_thread_writes_them_in_order(tmp_path):
    with CheckpointWriter(tmp_path / "new") as writer:
        for step in (1, 2, 3):
            writer.write(step, ARRAYS, {"step": step})
    assert files(tmp_path / "new") == ["step-000000002.safetensors", "step-000000003.safetensors"]
    assert read_last_checkpoint(tmp_path / "new")[1] == {"step": 3}


def run_that_fails(folder):
    """As with a user's hook, or a loss that is not a number."""
    with CheckpointWriter(folder) as writer:
        writer.write(1, ARRAYS, {"step": 1})
        raise FloatingPointError


def test_an_error_waits_until_the_last_is_written(tmp_path, monkeypatch):
    gate = threading.Event()

    def save_slowly(*arguments, **options):
        gate.wait(10)
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", save_slowly)
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(FloatingPointError):
        run_that_fails(tmp_path)
    assert files(tmp_path) == ["step-000000001.safetensors"]


def test_an_error_is_not_hidden_by_that_of_the_last_write(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(FloatingPointError):
        run_that_fails(tmp_path / "file")
    assert "The last checkpoint was not written: [Errno 17] File exists" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers_replace_no_checkpoint(tmp_path, dtype):
    """The loss of the step that broke them is that from before its update."""
    weights = keras.ops.convert_to_tensor([1.0, float("nan")], dtype)
    arrays = {**ARRAYS, "model 0001 kernel": weights}
    writer = CheckpointWriter(tmp_path)
    writer.write(1, ARRAYS, {"step": 1})
    writer.write(2, arrays, {"step": 2})
    message = r"after step 2 \(model 0001 kernel\); its checkpoint is not written"
    with pytest.raises(FloatingPointError, match=message):
        writer.wait()
    assert files(tmp_path) == ["step-000000001.safetensors"]
    write_checkpoint(tmp_path, 3, {"optimizer 0001 scale": np.array([np.inf])}, {"step": 3})
    assert len(files(tmp_path)) == 2


def test_what_stops_a_write_is_raised_in_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(tmp_path / "file")
    writer.write(1, ARRAYS, {"step": 1})
    with pytest.raises(FileExistsError):
        writer.write(2, ARRAYS, {"step": 2})
    writer.wait()  # it is raised once


def test_without_a_folder_nothing_is_written():
    writer = CheckpointWriter(None)
    writer.write(1, ARRAYS, {})
    writer.wait()
