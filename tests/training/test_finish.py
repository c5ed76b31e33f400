"""What a finished run leaves is made once, and again where it would differ."""

import io
import json
import types

import pytest
import tensorflow as tf
from PIL import Image

from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.training import classify_held_out_picture, finish


def test_an_export_is_made_for_each_way_of_reading_images(tmp_path, monkeypatch):
    made = []

    def export(model, saved, exports, options):
        made.append(options["exif_orientation"])
        folder = exports / str(len(made))
        folder.mkdir(parents=True)
        return str(folder)

    def write(turned):
        options = {"labels": ["a", "b"], "crop_ratio": 0.5, "exif_orientation": turned}
        return finish.write_result(tmp_path, model, {"loss": 1.0}, options, True, "pets")

    monkeypatch.setattr(finish, "_export", export)
    monkeypatch.setattr(finish, "_describe", lambda *arguments: None)
    model = types.SimpleNamespace(save=lambda path: path.write_text("weights"))
    exports = [str(tmp_path / "export" / number) for number in "12"]
    assert [write(turned) for turned in (True, True, False)] == [exports[0], *exports]
    assert made == [True, False]

    values = json.loads((tmp_path / "result.json").read_text())
    assert (values["export"], values["exif_orientation"]) == (exports[1], False)
    for name in ("crop_ratio", "exif_orientation"):  # which version 0.1 did not record
        del values[name]
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert write(False) == exports[1]
    assert made == [True, False]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp"])
def test_the_held_out_image_is_named_by_its_format(suffix, tmp_path, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, {"jpg": "jpeg"}.get(suffix, suffix))
    answer = {"classes": tf.constant([["ant"]]), "scores": tf.constant([[1.0]])}
    signatures = {"classify_bytes": lambda image_bytes: answer}
    loaded = types.SimpleNamespace(signatures=signatures)
    monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded)
    split = MemorySplit([file.getvalue()], [0])
    source = Source("x", ("ant",), split, split)
    path, _, _ = classify_held_out_picture(source, "export", tmp_path)
    assert path == tmp_path / f"held_out.{suffix}"
    assert path.read_bytes() == file.getvalue()
