"""What the tests of commands share: a run's folder, and a command in this process."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

import crossvit_command
from tests import base
from tests.commands.helpers import LABELS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as a run leaves it, and a folder of images, one class fewer, in another order."""
    folder = tmp_path_factory.mktemp("commands")
    model = base.small_model(labels=LABELS)
    (folder / "run").mkdir()
    model.save(folder / "run" / "model.keras")
    values = {"dataset": f"folder:{folder / 'pictures'}", "crop_ratio": 1.0}
    (folder / "run" / "config.json").write_text(json.dumps(values))
    draw = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in ("bee", "cat", "dog", "eel"):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                pixels = draw.integers(0, 256, (40, 40, 3)).astype("uint8")
                tf.io.write_file(str(place / f"{number}.png"), tf.io.encode_png(pixels))
    (folder / "pictures" / "validation" / "eel" / "broken.jpg").write_bytes(b"\xff\xd8\xff none")
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossvit", *map(str, arguments)])
        crossvit_command.main()
        return capsys.readouterr().out

    return call
