"""Which files are classified, and what is refused before."""

import pathlib

import pytest

from keras_crossvit.commands.evaluate import _split
from keras_crossvit.data.pipeline import labels_in_one_line
from keras_crossvit.data.sources import MemorySplit
from keras_crossvit.evaluation import evaluate
from keras_crossvit.prediction import classify_files, find_images
from tests import base


def test_images_of_a_folder(tmp_path):
    """Without hidden ones; through links; those to nothing are named when they are read."""
    for name in ("b.JPG", "a/c.png", ".hidden.png", ".folder/d.png", "notes.txt"):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.png").touch()
    (tmp_path / "pictures" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "gone.png").symlink_to(tmp_path / "nowhere")
    found = find_images([tmp_path / "pictures"])
    names = [file.relative_to(tmp_path / "pictures").as_posix() for file in found]
    assert names == ["a/c.png", "b.JPG", "gone.png", "linked/e.png"]


@pytest.mark.parametrize("files", ["a.png", pathlib.Path("a.png")])
def test_one_path_is_no_list(files):
    with pytest.raises(ValueError, match=r"`files` must be a list.*Received: files='a\.png'"):
        classify_files(base.small_model(), files)


@pytest.mark.parametrize(
    ("text", "split"),
    [("0.2", 0.2), ("test", "test"), ("2024", "2024"), ("1", "1"), ("nan", "nan")],
)
def test_only_numbers_between_0_and_1_are_shares(text, split):
    assert _split(text) == split


def test_a_split_without_labels():
    split = MemorySplit([b"x", b"y"], [0, -1])
    with (
        pytest.raises(
            ValueError, match=r"`dataset` must have labels .* Received: mine, where a la"
        ),
        labels_in_one_line("mine"),
    ):
        evaluate(base.small_model(), split, list("abcde"))
