"""ONNX, LiteRT and OpenVINO files, each read by its own runtime and compared with Keras."""

import concurrent.futures
import importlib.util
import inspect
import logging
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.export import (
    export,
    export_litert,
    export_onnx,
    export_openvino,
    export_saved_model,
    export_triton,
    load_exported,
)
from keras_crossvit.export.formats import FORMATS, top1
from keras_crossvit.export.precision import quantized
from keras_crossvit.export.runtimes import to_onnx
from tests import base

pytestmark = pytest.mark.slow

WRITERS = {".onnx": export_onnx, ".tflite": export_litert, ".xml": export_openvino}
SUFFIXES = pytest.mark.parametrize("suffix", WRITERS)

# Each runtime alone, in a process where Keras and TensorFlow cannot be imported.
ALONE = """
import sys
sys.modules["keras"] = sys.modules["tensorflow"] = sys.modules["keras_crossvit"] = None
import numpy as np, onnxruntime, openvino
from ai_edge_litert.interpreter import Interpreter
folder, images = sys.argv[1], np.load(sys.argv[2])
onnx = onnxruntime.InferenceSession(folder + "/m.onnx")
litert = Interpreter(folder + "/m.tflite").get_signature_runner()
xml = openvino.compile_model(folder + "/m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
answers = {
    "onnx": onnx.run(["logits"], {"images": images})[0],
    "tflite": litert(images=images)["logits"],
    "xml": xml({"images": images})["logits"],
}
np.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="module")
def model():
    """One stage, which has all operations: conversion takes seconds per stage.

    Its name begins the names of all operations, and must not be taken for a layer's.
    """
    config = base.small_config(num_stages=1)
    return base.small_model(config, classifier_activation=None, name="my_resize")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The small model in all formats."""
    folder = tmp_path_factory.mktemp("new folder") / "made"
    for suffix, write in WRITERS.items():
        assert write(model, folder / f"m{suffix}") == folder / f"m{suffix}"
    return folder


class TestFiles:
    @SUFFIXES
    def test_logits_are_those_of_keras_at_any_batch(self, model, folder, suffix):
        run = load_exported(folder / f"m{suffix}")
        for batch in (1, 3, 7, 3):
            images = base.pixels(batch, seed=batch)
            expected = model.predict(images, verbose=0)
            assert np.abs(expected).max() > 0.5
            np.testing.assert_allclose(run(images), expected, atol=1e-4)

    def test_accuracy_with_several_labels(self, model, folder):
        """The share of images whose highest class is one of their labels."""
        images = base.pixels(6)
        best = model.predict(images, verbose=0).argmax(-1)
        labels = np.eye(5, dtype="float32")[best]
        labels[:, 4] = labels[:, 0] = 1
        labels[0], labels[1, best[1]] = np.arange(5) == (best[0] + 1) % 5, 0
        expected = labels[np.arange(6), best].mean()
        assert 0 < expected < 1
        assert top1(folder / "m.onnx", [(images, labels, np.ones(6))]) == pytest.approx(expected)
        for batches in ([], [(images, labels, np.zeros(6))]):
            with pytest.raises(
                ValueError, match=r"`batches` must hold an image .* Received: none"
            ):
                top1(folder / "m.onnx", batches)

    @SUFFIXES
    def test_what_was_there_stays_if_the_disk_is_full(self, model, suffix, tmp_path, monkeypatch):
        import openvino

        endings = [".xml", ".bin"] if suffix == ".xml" else [suffix]
        files = [tmp_path / f"m{ending}" for ending in endings]
        for file in files:
            file.write_bytes(b"good")

        def full(*arguments, **options):
            path = next(x for x in arguments if isinstance(x, pathlib.Path))
            path.write_text("half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pathlib.Path, "write_bytes", full)
        monkeypatch.setattr(openvino, "save_model", full)
        with pytest.raises(OSError, match="No space left"):
            WRITERS[suffix](model, tmp_path / f"m{suffix}")
        assert {file.read_bytes() for file in files} == {b"good"}
        assert sorted(tmp_path.iterdir()) == sorted(files)

    def test_without_keras_and_tensorflow(self, model, folder, tmp_path):
        images = base.pixels(2)
        np.save(tmp_path / "images.npy", images)
        base.run_python(ALONE, folder, tmp_path / "images.npy", tmp_path / "answers.npz")
        answers = np.load(tmp_path / "answers.npz")
        assert set(answers) == {"onnx", "tflite", "xml"}
        for answer in answers.values():
            np.testing.assert_allclose(answer, model.predict(images, verbose=0), atol=1e-4)

    def test_onnx_is_valid(self, folder):
        import onnx

        onnx.checker.check_model(folder / "m.onnx", full_check=True)
        graph = onnx.load(folder / "m.onnx").graph
        assert [value.name for value in graph.input] == ["images"]
        assert [value.name for value in graph.output] == ["logits"]
        dimensions = graph.input[0].type.tensor_type.shape.dim
        assert [d.dim_value for d in dimensions] == [0, 40, 40, 3]  # 0: any
        assert {node.domain for node in graph.node} <= {"", "ai.onnx"}

    def test_litert_has_built_in_operators_only(self, folder):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(folder / "m.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["images"], "outputs": ["logits"]}
        }
        (details,) = interpreter.get_input_details()
        assert details["shape_signature"].tolist() == [-1, 40, 40, 3]
        operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
        assert {"FULLY_CONNECTED", "BATCH_MATMUL", "GELU"} <= operators
        assert not [name for name in operators if name.startswith(("Flex", "CUSTOM", "VAR"))]

    def test_pixels_in_and_probabilities_out(self, tmp_path):
        """As in the SavedModel, the input is pixels whatever the model takes."""
        config = base.small_config(num_stages=1)
        bare = base.small_model(config, include_preprocessing=False)
        images = base.pixels()
        prepared = kc.preprocess_input(images, include_preprocessing=False)
        run = load_exported(export_litert(bare, tmp_path / "m.tflite"))
        np.testing.assert_allclose(
            run(images), bare.predict(np.asarray(prepared), verbose=0), atol=1e-5
        )
        from ai_edge_litert.interpreter import Interpreter

        (signature,) = Interpreter(str(tmp_path / "m.tflite")).get_signature_list().values()
        assert signature["outputs"] == ["probabilities"]


class TestOperatorsThatOnnxLacks:
    @pytest.mark.parametrize("name", ["onnx", "triton"])
    def test_nothing_is_written(self, tmp_path, name):
        """TensorFlow's own GELU is written with Erfc."""
        model = base.small_model(base.small_config(num_stages=1), classifier_activation="gelu")
        message = r"`model` must use operators that ONNX has\. Received: .* TensorFlow's Erfc$"
        with pytest.raises(ValueError, match=message):
            export(model, name, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_in_a_branch(self):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
        def function(x):
            below, above = (lambda: tf.math.lgamma(x)), (lambda: tf.math.erfc(x))
            return {"y": tf.cond(tf.reduce_sum(x) < 0, below, above)}

        with pytest.raises(ValueError, match=r"uses TensorFlow's Erfc, Lgamma$"):
            to_onnx(function)


class TestInt8:
    def test_weights(self, model, folder, tmp_path):
        path = export_litert(model, tmp_path / "m.tflite", int8=True)
        assert path.stat().st_size < 0.8 * (folder / "m.tflite").stat().st_size
        for batch in (1, 3):
            images = base.pixels(batch)
            expected = model.predict(images, verbose=0)
            difference = np.abs(load_exported(path)(images) - expected).max()
            assert 1e-4 < difference < 0.1 * np.abs(expected).max()

    def test_activations(self, model, tmp_path):
        """With samples, the products of weights and activations are integers."""
        from ai_edge_litert.interpreter import Interpreter

        samples = [*base.pixels(8, seed=5)]
        path = export_litert(model, tmp_path / "m.tflite", int8=True, samples=samples)
        interpreter = Interpreter(str(path))
        types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
        for operator in interpreter._get_ops_details():
            if operator["op_name"] in ("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"):
                assert [types[index] for index in operator["outputs"]] == [np.int8]
        assert [details["dtype"] for details in interpreter.get_input_details()] == [np.float32]
        answer = load_exported(path)(base.pixels(3))
        assert answer.shape == (3, 5)
        assert np.isfinite(answer).all()

    def test_openvino(self, model, folder, tmp_path):
        """Weights and activations, for any number of images, with more tokens than channels."""
        import nncf  # noqa: F401, since its import sets levels
        import openvino

        handler = logging.NullHandler()  # of the surrounding program
        log = logging.getLogger("nncf")
        log.addHandler(handler)
        level, samples = log.level, base.pixels(64, seed=5)
        path = export_openvino(model, tmp_path / "m.xml", int8=True, samples=samples)
        log.removeHandler(handler)
        assert (log.level, handler.level) == (level, logging.NOTSET)
        sizes = [file.with_suffix(".bin").stat().st_size for file in (path, folder / "m.xml")]
        assert sizes[0] < 0.6 * sizes[1]
        operations = openvino.Core().read_model(path).get_ops()
        constants = [op for op in operations if op.get_type_name() == "Constant"]
        assert any(op.get_element_type() == openvino.Type.i8 for op in constants)
        in_8_bits = {"MatMul": 0, "ScaledDotProductAttention": 0}
        for op in operations:
            if op.get_type_name() in in_8_bits:
                sources = [i.get_source_output().get_node().get_type_name() for i in op.inputs()]
                in_8_bits[op.get_type_name()] += "FakeQuantize" in sources
        # With weights: six in each of three encoders, four for each branch of a fusion, two heads.
        assert in_8_bits == {"MatMul": 3 * 6 + 2 * 4 + 2, "ScaledDotProductAttention": 0}
        images = base.pixels(40)
        expected = model.predict(images, verbose=0)
        run = load_exported(path)
        difference = np.abs(run(images) - expected)
        assert difference.max() > 1e-4
        assert difference.mean() < 0.25 * expected.std()  # of noise from random weights
        np.testing.assert_allclose(run(images[:1]), run(images)[:1], atol=1e-2)

    def test_saved_model(self, tmp_path):
        """What is served is what `model.quantize` computes; the model is unchanged."""
        classifier = base.small_model(base.small_config(num_stages=1))
        images = base.pixels(3)
        before = classifier.predict(images, verbose=0)
        answer = load_exported(export(classifier, "saved_model", tmp_path, int8=True))(images)
        whole = quantized(classifier)
        rounded = whole.predict(images, verbose=0)
        np.testing.assert_array_equal(quantized(whole).predict(images, verbose=0), rounded)
        np.testing.assert_allclose(answer, rounded, atol=1e-5)
        assert 1e-5 < np.abs(answer - before).max() < 0.05
        np.testing.assert_array_equal(classifier.predict(images, verbose=0), before)


def test_openvino_in_bfloat16(model, folder):
    import openvino

    images = base.pixels(3)
    exact, rounded = (
        load_exported(folder / "m.xml", precision)(images) for precision in ("float32", "bfloat16")
    )
    difference = np.abs(rounded - exact).max()
    assert difference < 0.05 * np.abs(exact).max()
    has_it = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (difference > 1e-4) == has_it


@pytest.mark.parametrize("count", [1, 4, 6, 12])
def test_openvino_for_one_number_of_images(model, folder, count):
    """Twelve are computed in three parts, whose order stays."""
    run = load_exported(folder / "m.xml", batch_size=count)
    for seed in (0, 1):
        images = base.pixels(count, seed=seed).astype("float64")
        np.testing.assert_allclose(run(images), model.predict(images, verbose=0), atol=1e-4)
    message = rf"`images` must be batch_size={count} images\. Received: {count + 1}"
    with pytest.raises(ValueError, match=message):
        run(base.pixels(count + 1))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".onnx", {}), (".tflite", {}), (".xml", {}), (".xml", {"batch_size": 8})],
)
def test_threads_that_ask_at_once(folder, suffix, options):
    run = load_exported(folder / f"m{suffix}", **options)
    batches = [base.pixels(8, seed=seed) for seed in range(4)]
    expected = [run(images) for images in batches]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(run, batches * 10)]
    np.testing.assert_allclose(answers, expected * 10, atol=1e-5)


class TestBadArguments:
    @SUFFIXES
    def test_path(self, model, tmp_path, suffix):
        with pytest.raises(ValueError, match=rf"`path` must end in '\{suffix}'\. Received: path="):
            WRITERS[suffix](model, tmp_path / "new" / "m.pb")
        assert not (tmp_path / "new").exists()

    @SUFFIXES
    def test_model(self, tmp_path, suffix):
        with pytest.raises(ValueError, match="`model` must be a classifier of this package"):
            WRITERS[suffix](base.small_model(include_top=False), tmp_path / f"m{suffix}")

    def test_precision(self, tmp_path):
        keras.config.set_dtype_policy("bfloat16")
        model = base.small_model()
        with pytest.raises(ValueError, match=r"must compute in float32.*\['bfloat16'\]"):
            export_litert(model, tmp_path / "m.tflite")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"samples": base.pixels()}, "`samples` must be None unless int8=True"),
            (
                {"samples": base.pixels(2, 8, 8), "int8": True},
                r"`samples` must be images \(n, 40, 40, 3\)\. Received: shape \(2, 8, 8, 3\)",
            ),
            ({"samples": base.pixels(0), "int8": True}, "`samples` must be images"),
            (
                {"samples": [*base.pixels(1, 8, 8), *base.pixels(1, 9, 9)], "int8": True},
                r"^`samples` must be images \(n, 40, 40, 3\)\. Received: .* inhomogeneous .*$",
            ),
            ({"samples": 5, "int8": True}, r"`samples` must be images .*Received: shape \(\)"),
            (
                {"samples": base.pixels() * np.nan, "int8": True},
                r"`samples` must be images .* of finite numbers\. Received: NaN or infinity$",
            ),
            ({"samples": base.pixels() + np.inf, "int8": True}, "of finite numbers"),
        ],
    )
    def test_samples(self, model, tmp_path, arguments, message):
        for suffix in (".tflite", ".xml"):
            with pytest.raises(ValueError, match=message):
                WRITERS[suffix](model, tmp_path / f"m{suffix}", **arguments)

    def test_openvino_needs_samples(self, model, tmp_path):
        with pytest.raises(ValueError, match="`samples` must be images with int8=True"):
            export_openvino(model, tmp_path / "m.xml", int8=True)

    @pytest.mark.parametrize(
        ("suffix", "precision", "allowed"),
        [(".onnx", "bfloat16", "float32"), (".xml", "bf16", "float32, bfloat16")],
    )
    def test_load_precision(self, folder, suffix, precision, allowed):
        message = rf"`precision` must be one of {allowed} for 'm\{suffix}'\. Received: precision="
        with pytest.raises(ValueError, match=message):
            load_exported(folder / f"m{suffix}", precision)

    @pytest.mark.parametrize(
        ("suffix", "batch_size", "message"),
        [
            (".onnx", 3, r"`batch_size` must be None for 'm\.onnx'\. Received: batch_size=3"),
            (".xml", 0, "`batch_size` must be a positive integer"),
        ],
    )
    def test_load_batch_size(self, folder, suffix, batch_size, message):
        with pytest.raises(ValueError, match=message):
            load_exported(folder / f"m{suffix}", batch_size=batch_size)

    def test_formats_take_what_their_writers_do(self):
        writers = (export_saved_model, export_onnx, export_litert, export_openvino, export_triton)
        for row, write in zip(FORMATS.values(), writers, strict=True):
            arguments = list(inspect.signature(write).parameters)[2:]
            further = ["int8"] if row.name == "saved_model" else []  # by another function
            assert sorted(row.takes) == sorted(arguments + further)

    @pytest.mark.parametrize(("name", "int8"), [("coreml", False), ("onnx", True)])
    def test_format(self, model, tmp_path, name, int8):
        with pytest.raises(ValueError, match=rf"`name` must be one of .*Received: name='{name}'"):
            export(model, name, tmp_path, int8=int8)

    @pytest.mark.parametrize("name", ["openvino", "saved_model"])
    def test_labels(self, model, tmp_path, name):
        """Their number is checked even where they are not used."""
        with pytest.raises(ValueError, match=r"`labels` must be a list of 5 .* of length 1"):
            export(model, name, tmp_path, labels=["ant"])
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["m.pb", "m", "m.keras"])
    def test_load(self, tmp_path, name):
        message = (
            r"`path` must be the version folder .* or end in one of \.onnx, .*Received: path="
        )
        with pytest.raises(ValueError, match=message):
            load_exported(tmp_path / name)

    @pytest.mark.parametrize("name", ["", "m.onnx"])
    def test_load_a_folder_without_a_model(self, tmp_path, name):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"`path` must be the version folder of a SavedModel"):
            load_exported(tmp_path / name)

    @pytest.mark.parametrize(
        ("suffix", "package"),
        [(".onnx", "tf2onnx"), (".xml", "openvino")],
    )
    def test_absent_converter(self, model, tmp_path, monkeypatch, suffix, package):
        self.hide(monkeypatch, package)
        with pytest.raises(ImportError, match=rf"needs {package}: pip install .*,runtimes\]"):
            WRITERS[suffix](model, tmp_path / f"m{suffix}")

    def test_absent_nncf(self, model, tmp_path, monkeypatch):
        self.hide(monkeypatch, "nncf")
        with pytest.raises(ImportError, match=r"needs nncf: pip install .*,runtimes,int8\]"):
            export_openvino(model, tmp_path / "m.xml", int8=True, samples=base.pixels())

    @pytest.mark.parametrize(
        ("suffix", "package"),
        [(".onnx", "onnxruntime"), (".tflite", "ai_edge_litert"), (".xml", "openvino")],
    )
    def test_absent_runtime(self, tmp_path, monkeypatch, suffix, package):
        self.hide(monkeypatch, package)
        with pytest.raises(ImportError, match=rf"needs {package}: pip install .*,runtimes\]"):
            load_exported(tmp_path / f"m{suffix}")

    def hide(self, monkeypatch, package):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            "keras_crossvit.export.checks.importlib.util.find_spec",
            lambda name: None if name == package else find(name),
        )
