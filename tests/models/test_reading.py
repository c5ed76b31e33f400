"""How images are read for the evaluation: what a folder says of it goes with the model."""

import argparse
import copy
import json
import pickle
import re

import keras
import pytest

import keras_crossvit as kc
from keras_crossvit.commands.shared import FoundModel
from tests import base


def test_how_images_are_read_is_handed_on(tmp_path):
    """Of a run, whose config.json has the names of its values, and of a folder."""

    def read(folder):
        found = json.loads((tmp_path / folder / "config.json").read_text())
        return found["pretrained_cfg"]["crop_pct"], found.get("exif_orientation")

    run = {"epochs": 3, "crop_ratio": 0.75, "exif_orientation": False}
    base.small_model().save_pretrained(tmp_path / "run")
    assert read("run") == (0.875, None)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, **run}))

    found = kc.from_pretrained(tmp_path / "run")
    assert found.reading == {"crop_ratio": 0.75, "exif_orientation": False}
    found.save_pretrained(tmp_path / "folder")
    assert read("folder") == (0.75, False)
    again = kc.from_pretrained(tmp_path / "folder")
    assert again.reading == found.reading
    again.save_pretrained(tmp_path / "given", crop_ratio=0.5)
    assert read("given") == (0.5, False)
    other_size = kc.from_pretrained(tmp_path / "folder", input_shape=(48, 48, 3))
    assert other_size.reading == {"exif_orientation": False}
    same_size = kc.from_pretrained(tmp_path / "folder", input_shape=(40, 40, 3))
    assert same_size.reading == found.reading
    found.save_pretrained(tmp_path / "run", crop_ratio=1.0)  # which has a ratio of its own
    assert kc.from_pretrained(tmp_path / "run").reading["crop_ratio"] == 1.0
    base.small_model().save_pretrained(tmp_path / "given")  # another model, of which this is new
    assert read("given") == (0.875, None)


def test_what_is_saved_or_copied_of_a_model_is_read_alike(tmp_path):
    model = base.small_model()
    model.reading = {"crop_ratio": 0.75, "exif_orientation": False}
    model.save(tmp_path / "model.keras")
    copies = [
        keras.models.load_model(tmp_path / "model.keras"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    assert [x.reading for x in copies] == [model.reading] * 3
    copies[1].reading["crop_ratio"] = 0.5
    assert model.reading["crop_ratio"] == 0.75
    arguments = argparse.Namespace(crop_ratio=None, exif_orientation=None)
    assert FoundModel(copies[0]).reading(arguments) == model.reading
    arguments = argparse.Namespace(crop_ratio=0.5, exif_orientation=True)
    assert FoundModel(copies[0]).reading(arguments) == vars(arguments)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"crop_ratio": 1.5}, "`crop_ratio` must be a number in (0, 1]. Received: crop_ratio=1.5"),
        ({"exif_orientation": 0}, "`exif_orientation` must be one of False, True. Received: "),
    ],
)
def test_how_images_are_read_is_checked(reading, message, tmp_path):
    model = base.small_model()
    model.reading = reading
    with pytest.raises(ValueError, match=re.escape(message)):
        model.save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match=re.escape(message)):
        model.get_config()
    assert not (tmp_path / "folder").exists()
    base.small_model().save_pretrained(tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **reading}))
    with pytest.raises(ValueError, match=f"^`source` .* {re.escape(message)}"):
        kc.from_pretrained(tmp_path / "folder")
