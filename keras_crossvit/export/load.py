"""Exported files, each run by its own runtime: to see that a file is good, whoever wrote it."""

import pathlib

from keras_crossvit.export.packages import require


def load_exported(path):
    """Loads what the functions of `keras_crossvit.export` write.

    Args:
        path: A version folder of a SavedModel, or a file that ends in ".onnx", ".tflite" or
            ".xml" (OpenVINO).

    Returns:
        A function from images, float32 `(N, H, W, 3)` in 0..255, to the answer
        `(N, classes)`, both numpy arrays, computed by the format's own runtime.

    Raises:
        ValueError: If `path` is none of these.
        ImportError: If the runtime is absent; the message names the extra to install.
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
    require("an .onnx file", "onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _litert(path):
    require("a .tflite file", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    # The signature's runner resizes the input to the batch that comes.
    run = Interpreter(str(path)).get_signature_runner()
    return lambda images: next(iter(run(images=images).values()))


def _openvino(path):
    require("an .xml file", "openvino")
    import openvino

    # Left to itself it computes in bfloat16 where the processor can.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(path, "CPU", exact)
    return lambda images: run({"images": images})[0]


_LOADERS = {".onnx": _onnx, ".tflite": _litert, ".xml": _openvino}
