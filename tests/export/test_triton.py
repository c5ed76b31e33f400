"""The model repository for Triton, by Triton's own messages and run as its configuration says."""

import threading

import keras
import numpy as np
import pytest

from keras_crossvit.export import export, export_triton, load_exported
from tests import base
from tests.export.helpers import LABELS
from tests.export.triton_model import RefusedError, TritonModel

pytestmark = pytest.mark.slow


def model_of(**arguments):
    """One stage, which has all operations: conversion takes seconds per stage."""
    return base.small_model(base.small_config(num_stages=1), **arguments)


@pytest.fixture(scope="module")
def model():
    return model_of(name="small-one")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model's folder in a repository, after one export."""
    repository = tmp_path_factory.mktemp("a repository") / "new"
    options = {"labels": LABELS, "top_k": 3, "crop_ratio": 0.9, "max_batch_size": 4}
    version = export(model, "triton", repository, exif_orientation=False, **options)
    assert version == repository / "small-one" / "1"
    return version.parent


@pytest.fixture(scope="module")
def served(folder):
    return TritonModel(folder)


class TestRepository:
    def test_what_it_holds(self, folder):
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        assert files == ["1", "1/model.onnx", "config.pbtxt", "labels.txt"]
        assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
        assert [path.name for path in folder.parent.iterdir()] == ["small-one"]
        for path in folder.rglob("*"):
            assert path.stat().st_mode & 0o444 == 0o444  # the server runs as another user

    def test_config(self, served):
        config = served.config
        assert config.max_batch_size == 4
        (images,), (probabilities,) = config.input, config.output
        assert (images.name, list(images.dims)) == ("images", [40, 40, 3])
        assert (probabilities.name, list(probabilities.dims)) == ("probabilities", [5])
        assert probabilities.label_filename == "labels.txt"
        assert config.HasField("dynamic_batching")
        assert config.dynamic_batching.max_queue_delay_microseconds == 5000
        assert config.dynamic_batching.default_queue_policy.max_queue_size == 100
        assert {key: value.string_value for key, value in config.parameters.items()} == {
            "crop_ratio": "0.9",
            "exif_orientation": "false",
            "top_k": "3",
        }

    @pytest.mark.parametrize("batch", [1, 3, 4])
    def test_probabilities_are_those_of_keras(self, model, served, batch):
        images = base.pixels(batch, seed=batch)
        answer = served.infer({"images": images})
        expected = model.predict(images, verbose=0)
        assert expected.std() > 0.01
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)

    def test_load_exported(self, folder, served):
        images = base.pixels(3)
        answer = served.infer({"images": images})["probabilities"]
        np.testing.assert_array_equal(load_exported(folder / "1")(images), answer)

    def test_more_than_the_largest_batch(self, served):
        with pytest.raises(RefusedError, match="batch-size must be <= 4"):
            served.infer({"images": base.pixels(5)})

    def test_onnx_is_for_the_server_of_the_compose_file(self, folder):
        """What ONNX Runtime 1.27, the one in Triton 26.07, was seen to run."""
        import onnx

        file = onnx.load(folder / "1" / "model.onnx")
        assert {entry.domain: entry.version for entry in file.opset_import}[""] == 15
        assert file.ir_version == 8
        assert {node.domain for node in file.graph.node} == {""}


class TestOtherModels:
    def test_an_image_for_each_branch(self, tmp_path):
        pairs = model_of(inputs="separate")
        version = export_triton(pairs, tmp_path)
        served = TritonModel(version.parent)
        assert [known.name for known in served.config.input] == ["small_images", "large_images"]
        small, large = base.pixels(seed=1), base.pixels(seed=2)
        answer = served.infer({"small_images": small, "large_images": large})["probabilities"]
        np.testing.assert_allclose(answer, pairs.predict_on_batch([small, large]), atol=1e-5)
        np.testing.assert_array_equal(load_exported(version)(small, large), answer)
        swapped = served.infer({"small_images": large, "large_images": small})["probabilities"]
        assert np.abs(swapped - answer).max() > 1e-3

    def test_grey_logits_of_normalised_images(self, tmp_path):
        """What is served takes pixels and returns probabilities, whatever the model does."""
        bare = model_of(
            input_shape=(40, 40, 1), include_preprocessing=False, classifier_activation=None
        )
        served = TritonModel(export_triton(bare, tmp_path).parent)
        images = base.pixels()[..., :1]
        answer = served.infer({"images": images})["probabilities"]
        normalised = (images / 255 - bare.mean) / bare.std
        expected = keras.ops.softmax(bare.predict_on_batch(normalised.astype("float32")))
        np.testing.assert_allclose(answer, expected, atol=1e-5)
        assert (
            served.classify("probabilities", np.eye(5), 1)
            == [  # classes without names
                [f"1.000000:{index}:{index}".encode()] for index in range(5)
            ]
        ).all()


class TestVersions:
    @pytest.fixture(autouse=True)
    def _no_conversion(self, monkeypatch):
        monkeypatch.setattr("keras_crossvit.export.triton.to_onnx", lambda _: b"onnx")
        monkeypatch.setattr("keras_crossvit.export.frozen.freeze_probabilities", lambda _: None)

    def test_another_export(self, model, tmp_path):
        first = export_triton(model, tmp_path, LABELS)
        files = [first.parent / name for name in ("config.pbtxt", "labels.txt")]
        before = [path.stat().st_ino for path in files]
        second = export_triton(model, tmp_path, LABELS)
        assert [first.name, second.name] == ["1", "2"]
        assert [path.stat().st_ino for path in files] == before  # nothing to load again
        third = export_triton(model, tmp_path, LABELS[::-1], max_batch_size=2)
        assert third.name == "3"
        assert "max_batch_size: 2" in files[0].read_text()
        assert files[1].read_text(encoding="utf-8").splitlines() == LABELS[::-1]
        assert len(list(first.parent.iterdir())) == 5  # and nothing else

    @pytest.mark.parametrize(("given", "written"), [(1, "true"), (0, "false"), (True, "true")])
    def test_orientation_is_written_as_a_client_reads_it(self, model, tmp_path, given, written):
        folder = export_triton(model, tmp_path, exif_orientation=given).parent
        line = f'key: "exif_orientation" value {{ string_value: "{written}" }}'
        assert line in (folder / "config.pbtxt").read_text()

    def test_failure_leaves_what_was_there(self, model, tmp_path, monkeypatch):
        folder = export_triton(model, tmp_path, LABELS).parent
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        def fail(path, text):
            (half,) = folder.glob(".export-*/version/*")
            assert (half.name, half.read_bytes()) == ("model.onnx", b"onnx")
            assert [path.name for path in folder.iterdir() if path.name.isdecimal()] == ["1"]
            raise OSError("disk full")

        monkeypatch.setattr("keras_crossvit.export.triton._replace", fail)
        with pytest.raises(OSError, match="disk full"):
            export_triton(model, tmp_path, LABELS[::-1], max_batch_size=2)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_exporters_at_once(self, model, tmp_path):
        threads = [
            threading.Thread(target=export_triton, args=[model, tmp_path]) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers = [p.name for p in (tmp_path / "small-one").iterdir() if p.name.isdecimal()]
        assert sorted(numbers) == ["1", "2", "3", "4", "5"]


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"labels": ["a"] * 4}, "`labels` must be a list of 5 names"),
            ({"top_k": 0}, "`top_k` must be a positive integer. Received: top_k=0"),
            ({"max_batch_size": 0}, "`max_batch_size` must be a positive integer"),
            ({"crop_ratio": 2}, r"`crop_ratio` must be a number in \(0, 1\]"),
        ],
    )
    def test_arguments(self, model, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            export_triton(model, tmp_path / "new", **arguments)
        assert not (tmp_path / "new").exists()

    def test_models(self, tmp_path):
        with pytest.raises(ValueError, match="`model` must be a classifier of this package"):
            export_triton(base.small_model(include_top=False), tmp_path / "new")
        half = base.small_model(dtype="bfloat16")
        with pytest.raises(ValueError, match=r"must compute in float32.*\['bfloat16'\]"):
            export_triton(half, tmp_path / "new")
        with pytest.raises(ValueError, match="`name` must be one of saved_model, litert"):
            export(base.small_model(), "triton", tmp_path / "new", int8=True)
        assert not (tmp_path / "new").exists()

    def test_directory_that_is_a_file(self, model, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(ValueError, match=r"`directory` must be a folder\. Received: "):
            export_triton(model, tmp_path / "file")
