"""Runs exported files, each with its own runtime, for instance to check them."""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from keras_crossvit.export.checks import check_packages


def load_exported(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a file that a function of `keras_crossvit.export` has written.

    Args:
        path: The version folder of a SavedModel, or a file whose name ends in ".onnx",
            ".tflite" or ".xml" (OpenVINO).

    Returns:
        A function from images, float32 `(N, H, W, 3)` in 0..255, to the model's output
        `(N, classes)`, both NumPy arrays, which runs in the format's own runtime.

    Raises:
        ValueError: If `path` is none of these.
        ImportError: If the runtime is missing; the message names the extra to install.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _saved_model(path)
    if path.suffix not in _LOADERS:
        raise ValueError(
            f"`path` must be a folder or end in one of {', '.join(_LOADERS)}. "
            f"Received: path={str(path)!r}"
        )
    return _LOADERS[path.suffix](path)


def _saved_model(path):
    import tensorflow as tf

    signature = tf.saved_model.load(path).signatures["serving_default"]
    return lambda images: signature(images=tf.constant(images))["probabilities"].numpy()


def _onnx(path):
    check_packages("an .onnx file", "onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _litert(path):
    check_packages("a .tflite file", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    # The signature's runner resizes the input to each batch.
    run = Interpreter(str(path)).get_signature_runner()
    return lambda images: next(iter(run(images=images).values()))


def _openvino(path):
    check_packages("an .xml file", "openvino")
    import openvino

    # By default OpenVINO computes in bfloat16 if the processor supports it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(path, "CPU", exact)
    return lambda images: run({"images": images})[0]


_LOADERS = {".onnx": _onnx, ".tflite": _litert, ".xml": _openvino}
