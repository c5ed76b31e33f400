"""Runs exported files, each with its own runtime, for instance to check them."""

import os
import pathlib
import threading
from collections.abc import Callable

import numpy as np

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.export.checks import check_packages

_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # by Keras' name and by OpenVINO's
_PART = 4  # images that OpenVINO computes at a time; caches hold what is between their layers


def load_exported(
    path: str | os.PathLike, precision: str = "float32", batch_size: int | None = None
) -> Callable[..., np.ndarray]:
    """Loads a file that a function of `keras_crossvit.export` has written.

    Args:
        path: The version folder of a SavedModel or of Triton, or a file that ends in ".onnx",
            ".tflite" or ".xml" (OpenVINO).
        precision: What OpenVINO computes in, except for what was quantised to 8 bits: "float32",
            or "bfloat16", which is faster where the processor supports it. The other formats
            compute in "float32".
        batch_size: OpenVINO compiles for this number of images, and the function then takes no
            other. It is faster than a function of any number, for single images and in 8
            bits above all; a multiple of 4 is computed in parts of 4, several at once. The other
            formats do not take it.

    Returns:
        A function from images, float32 `(N, H, W, 3)` in 0..255, to what the file returns,
        `(N, classes)`, both NumPy arrays; it runs in the format's own runtime. A SavedModel
        and Triton's model return probabilities, the others the model's output, which is logits
        if its `classifier_activation` is `None` or "linear". For a model with
        `inputs="separate"`, the function takes two arguments, the small and the large branch's
        images. Several threads may call it: LiteRT and OpenVINO then answer one after the other.

    Raises:
        ValueError: If `path` is none of these, or `precision` or `batch_size` is not allowed.
        ImportError: If the runtime is missing; the message names the extra to install.
    """
    path = pathlib.Path(path)
    allowed = tuple(_HINTS) if path.suffix == ".xml" else ("float32",)
    if precision not in allowed:
        raise ValueError(
            f"`precision` must be one of {', '.join(allowed)} for {path.name!r}. "
            f"Received: precision={precision!r}"
        )
    if batch_size is not None:
        if path.suffix != ".xml":
            raise ValueError(
                f"`batch_size` must be None for {path.name!r}. Received: batch_size={batch_size!r}"
            )
        check_positive_int("batch_size", batch_size)
    if (path / "model.onnx").is_file():
        return _onnx(path / "model.onnx")
    if (path / "saved_model.pb").is_file():
        return _saved_model(path)
    if path.is_dir() or path.suffix not in _LOADERS:
        raise ValueError(
            "`path` must be the version folder of a SavedModel or of Triton, or end in one of "
            f"{', '.join(_LOADERS)}. Received: path={str(path)!r}"
        )
    return _LOADERS[path.suffix](path, precision, batch_size)


def _saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # its variables live as long as it does

    # Not the signature, which takes its inputs by name, but the function behind it.
    def run(*images):
        return loaded.serving_default(*map(tf.constant, images))["probabilities"].numpy()

    return run


def _onnx(path, *_):
    check_packages("an .onnx file", "onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *images: session.run(None, dict(zip(names, images, strict=True)))[0]


def _litert(path, *_):
    check_packages("a .tflite file", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    # The signature's runner resizes the input to each batch.
    run = Interpreter(str(path)).get_signature_runner()
    return _one_at_a_time(lambda images: next(iter(run(images=images).values())))


def _openvino(path, precision, batch_size):
    check_packages("an .xml file", "openvino")
    import openvino

    # By default OpenVINO computes in bfloat16 if the processor supports it.
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    core = openvino.Core()
    model = core.read_model(path)
    if batch_size is None:
        compiled = core.compile_model(model, "CPU", options)
        return _one_at_a_time(lambda images: compiled({"images": images}, share_inputs=True)[0])
    part = _PART if batch_size % _PART == 0 else batch_size
    parts = batch_size // part
    if parts > 1:
        options |= {"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": parts}
    shape = model.inputs[0].get_partial_shape()
    shape[0] = part
    model.reshape(shape)
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", options))

    def run(images):
        if len(images) != batch_size:
            raise ValueError(
                f"`images` must be batch_size={batch_size} images. Received: {len(images)}"
            )
        images = np.ascontiguousarray(images, "float32")
        answers = {}
        queue.set_callback(
            lambda request, start: answers.update({start: request.get_output_tensor().data.copy()})
        )
        for start in range(0, batch_size, part):
            given = {"images": images[start : start + part]}
            queue.start_async(given, start, share_inputs=True)
        queue.wait_all()
        return np.concatenate([answers[start] for start in sorted(answers)])

    return _one_at_a_time(run)


def _one_at_a_time(function):
    """The function, for runtimes that would mix up the images of threads that call it at once."""
    lock = threading.Lock()

    def run(images):
        with lock:
            return function(images)

    return run


_LOADERS = {".onnx": _onnx, ".tflite": _litert, ".xml": _openvino}
