"""Files that are replaced whole."""

import errno
import json
import os
import stat

import pytest

from keras_crossvit.common import files


def test_contents_replace_the_file_at_once(tmp_path):
    path = tmp_path / "values.json"
    path.write_text("old")
    with files.write_atomically(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
        assert aside.parent == tmp_path
        assert aside.name.endswith("values.json")  # some writers choose their format by the suffix
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["values.json"]


@pytest.mark.parametrize("name", ["a" * 251 + ".csv", "\U0001f408" * 62 + ".csv"])
def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path, name):
    files.write_text(tmp_path / name, "text")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "text"


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "values.json"
    path.write_text("old")

    def write():
        with files.write_atomically(path) as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["values.json"]


def test_contents_are_on_the_disk_before_they_replace_the_file(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda n: done.append(os.fstat(n).st_size) or fsync(n))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("new") or replace(*paths))
    files.write_text(tmp_path / "a", "12345")
    assert done == [5, "new"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    files.write_text(tmp_path / "ours", "é\n")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")}
    assert len(modes) == 1
    assert (tmp_path / "ours").read_bytes() == "é\n".encode()


def test_permissions_follow_the_umask_whatever_the_writer_puts_there(tmp_path):
    before = os.umask(0o027)
    try:
        with files.write_atomically(tmp_path / "ours") as aside:
            created = stat.S_IMODE(aside.stat().st_mode)
            aside.unlink()
            aside.touch(0o600)
    finally:
        os.umask(before)
    assert (created, stat.S_IMODE((tmp_path / "ours").stat().st_mode)) == (0o640, 0o640)


def test_the_umask_that_all_threads_share_is_left_alone(tmp_path, monkeypatch):
    changes = []
    monkeypatch.setattr(os, "umask", lambda mask: changes.append(mask) or 0o022)
    files.write_text(tmp_path / "a", "text")
    assert changes == []


def test_json(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": (1, None, float("nan"))})
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"b": [1, None, None]}
    assert text.endswith("]\n}\n")


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "missing" / "table.csv"
    with pytest.raises(FileNotFoundError) as raised:
        files.write_text(path, "text")
    assert str(raised.value) == f"[Errno 2] No such file or directory: '{path}'"


def test_an_error_of_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "table.csv"
    full, other = OSError(errno.ENOSPC, "No space left on device"), OSError("of no number")
    for error in (full, other):
        with pytest.raises(OSError, match=r"No space|of no number"), files.write_atomically(path):
            raise error
    assert str(full) == f"[Errno {errno.ENOSPC}] No space left on device: '{path}'"
    assert str(other) == "of no number"
    assert os.listdir(tmp_path) == []
