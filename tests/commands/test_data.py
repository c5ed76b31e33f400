"""Which images the commands measure a model on."""

import argparse

import keras
import pytest

import keras_crossvit as kc
from keras_crossvit.commands import export
from keras_crossvit.commands.shared import FoundModel, add_data, find_data
from tests.base import small_config


def opened(run, *given, with_training=False):
    """The source that `evaluate` and `export` open for the arguments and a run's values."""
    parser = argparse.ArgumentParser()
    add_data(parser, "to test with")
    return find_data(parser.parse_args([*given]), run, with_training)


@pytest.fixture
def pictures(tmp_path):
    """A folder with only a training split, eight images of each class."""
    for name in ("bee", "cow"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "train" / name / f"{number}.png").write_bytes(b"x")
    return f"folder:{tmp_path}"


@pytest.mark.parametrize("with_training", [False, True])
def test_a_runs_own_data_are_held_out_as_in_the_run(pictures, with_training):
    """An export is calibrated on the others, and measured on what the run did not train on."""
    run = {"dataset": pictures, "train_split": "train", "validation_split": 0.25}
    for given in ([], ["--dataset", pictures]):
        source = opened(run, *given, with_training=with_training)
        held_out, trained = (
            {split.name(row) for row in range(split.size)}
            for split in (source.validation, source.train)
        )
        assert (len(held_out), len(trained)) == (4, 12)
        assert not held_out & trained


def test_another_split(pictures):
    run = {"dataset": pictures, "validation_split": 0.25}
    assert opened(run, "--split", "0.5").validation.size == 8
    assert opened(run, "--split", "train").validation.size == 16
    assert opened({}, "--dataset", pictures, "--split", "train").validation.size == 16
    with pytest.raises(
        ValueError, match=r"`--split` must name a split .*: train.*Received: --split 'validation'"
    ):
        opened({}, "--dataset", pictures)
    with pytest.raises(ValueError, match="`--dataset` must be given"):
        opened({})
    message = "dataset='folder:nowhere', as the run has it; --dataset or --data-dir says where"
    with pytest.raises(FileNotFoundError, match=message):
        opened({"dataset": "folder:nowhere"})
    with pytest.raises(FileNotFoundError, match=r"dataset='folder:nowhere'$"):
        opened({"dataset": pictures}, "--dataset", "folder:nowhere")


def test_a_run_on_a_source_of_ones_own_needs_its_recipe():
    """Which registers the source: a word that nobody else knows."""
    message = r"must be registered first: --recipe FILE\.py\. Received: dataset='mine:\./photos'"
    with pytest.raises(ValueError, match=message):
        opened({"dataset": "mine:./photos"})
    with pytest.raises(ValueError, match=r'"csv:..."\. Received: dataset=\'mine:\./photos\''):
        opened({"dataset": "pets"}, "--dataset", "mine:./photos")


def test_only_the_runs_own_dataset_is_read_as_in_the_run(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "keras_crossvit.data.sources.open_source",
        lambda *given, **splits: calls.append((*given, *splits.values())),
    )
    run = {"dataset": "pets", "data_dir": "here", "train_split": "most", "validation_split": "dev"}
    for given in ([], ["--dataset", "pets"], ["--dataset", "cars"], ["--data-dir", "there"]):
        opened(run, *given, with_training=True)
    assert calls == [
        ("pets", "here", "most", "dev"),
        ("pets", "here", "most", "dev"),
        ("cars", None, "train", None),
        ("pets", "there", "most", "dev"),
    ]


def test_what_is_given_comes_before_what_the_run_says():
    upright, stored = (FoundModel(None, {"exif_orientation": x}) for x in (True, False))
    assert upright.value("exif_orientation", False, default=True) is False
    assert stored.value("exif_orientation", True, default=True) is True
    assert stored.value("exif_orientation", None, default=True) is False
    assert FoundModel(None, {"crop_ratio": None}).value("crop_ratio", None, default=0.9) == 0.9


@pytest.mark.parametrize(
    ("text", "split"),
    [("0.2", 0.2), ("test", "test"), ("2024", "2024"), ("1", "1"), ("nan", "nan")],
)
def test_only_numbers_between_0_and_1_are_shares(text, split):
    parser = argparse.ArgumentParser()
    add_data(parser, "to test with")
    assert parser.parse_args(["--split", text]).split == split


def test_images_of_a_model_with_an_input_of_any_size(tmp_path):
    """Files are read in the size that its branches see."""
    given = keras.Input((None, None, 3))
    resized = keras.layers.Resizing(40, 40)(given)
    model = kc.CrossViT(small_config(), weights=None, classes=10, input_tensor=resized)
    arguments = export.parse_export(
        ["--output-dir", "d", "--dataset", "digits", "--data-dir", str(tmp_path)]
    )
    samples, batches = export._images(arguments, FoundModel(model, {}), None, True)
    assert samples is None
    assert next(iter(batches))[0].shape == (50, 40, 40, 3)
