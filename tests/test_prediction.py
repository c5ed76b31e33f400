"""Which files are classified, and what is refused beforehand."""

import pathlib

import keras
import numpy as np
import pytest

from keras_crossvit import prediction
from keras_crossvit.data.sources import MemorySplit
from keras_crossvit.evaluation import evaluate
from keras_crossvit.prediction import _best, classify_files, find_images
from keras_crossvit.probes import features_of
from tests import base


def test_images_of_a_folder(tmp_path, caplog, monkeypatch):
    """Without hidden ones; through links; broken links are named when they are read."""
    others = ".hidden.png", ".folder/d.png", "notes.txt", "a/e.TIF", "f.tif", "g.heic"
    for name in ("b.JPG", "a/c.png", *others):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.png").touch()
    (tmp_path / "pictures" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "gone.png").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    found = find_images(iter(["~/pictures"]))
    names = [file.relative_to(tmp_path / "pictures").as_posix() for file in found]
    assert names == ["a/c.png", "b.JPG", "gone.png", "linked/e.png"]
    assert prediction._contents("~/pictures/b.JPG") == (b"", "")  # it is there, and empty
    left_out = "images that are left out: 1 .heic, 2 .tif"
    assert caplog.messages == [f"{tmp_path / 'pictures'}: {left_out}"]
    (tmp_path / "~none.png").touch()
    monkeypatch.chdir(tmp_path)
    assert find_images(["~none.png"]) == [pathlib.Path("~none.png")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"`PATH` must hold files.* Received: .*/empty$"):
        find_images(iter([tmp_path / "empty"]))


@pytest.mark.parametrize("files", ["a.png", pathlib.Path("a.png")])
def test_one_path_is_no_list(files):
    with pytest.raises(ValueError, match=r"`files` must be a list.*Received: files='a\.png'"):
        classify_files(base.small_model(), files)
    with pytest.raises(ValueError, match=r"`paths` must be a list.*Received: paths='a\.png'"):
        find_images(files)


def test_at_most_all_classes_are_named():
    found = _best({"model": np.array([0.25, 0.5, 0.25])}, ["ant", "bee", "cow"], top_k=9)
    assert found == {"classes": ["bee", "ant", "cow"], "scores": [0.5, 0.25, 0.25]}


@pytest.mark.parametrize("measure", ["classify", "evaluate", "branches", "features"])
def test_a_model_that_answers_nan(measure, tmp_path):
    """Otherwise it would be right for all images of the first class."""
    model = base.small_model()
    model.branches["large"].norm.gamma.assign(float("nan") * model.branches["large"].norm.gamma)
    picture = tmp_path / "a.png"
    keras.utils.save_img(picture, base.pixels(1)[0])
    split = MemorySplit([picture.read_bytes()], [0])
    measures = {
        "classify": lambda: classify_files(model, [picture]),
        "evaluate": lambda: evaluate(model, split, list("abcde")),
        "branches": lambda: evaluate(model, split, list("abcde"), branches=True),
        "features": lambda: features_of(model, split, 5),
    }
    with pytest.raises(ValueError, match="`model` must answer with finite numbers"):
        measures[measure]()


def test_normalised_pixels_that_a_gpu_holds(monkeypatch):
    """NumPy cannot read PyTorch's tensors there; Keras copies them first."""

    class OnGpu:
        def __array__(self, *arguments, **options):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    pixels = base.pixels(1)
    monkeypatch.setattr(prediction, "as_model_takes", lambda model, images: OnGpu())
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda tensor: pixels / 255)
    classifier = prediction.FileClassifier(base.small_model(include_preprocessing=False))
    np.testing.assert_array_equal(classifier.prepare(pixels), pixels / 255)


@pytest.mark.parametrize(("root", "said"), [("", "`split`"), ("imagenet2012", "imagenet2012")])
def test_a_split_without_labels(root, said):
    """A split of a dataset knows its name."""
    split = MemorySplit([b"x", b"y"], [0, -1])
    split.root = root
    message = rf"^`dataset` must have labels .* Received: {said}, where a label lies outside"
    with pytest.raises(ValueError, match=message):
        evaluate(base.small_model(), split, list("abcde"))
