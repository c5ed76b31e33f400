"""Exports to other runtimes: ONNX, LiteRT and OpenVINO.

The exported models take `images`, float32 `(N, H, W, 3)` with any N and pixels in 0..255,
whatever `include_preprocessing` was. They return what the model returns: `logits` if its
`classifier_activation` is `None` or "linear", otherwise `probabilities`.
"""

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from keras_crossvit.export.checks import (
    check_backend,
    check_classifier,
    check_float32,
    check_packages,
)
from keras_crossvit.models import CrossViT


def export_onnx(model: CrossViT, path: str | os.PathLike) -> pathlib.Path:
    """Writes an ONNX file.

    Args:
        model: A classifier of this package that computes in float32.
        path: The file to write; the name ends in ".onnx". Its folder is created if needed.

    Returns:
        The path of the file.

    Raises:
        ValueError: If an argument is not allowed.
        ImportError: If a package is missing; the message names the extra to install.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    file = _check("export_onnx", model, path, ".onnx")
    check_packages("export_onnx", "tf2onnx", "onnx")
    write_onnx(_freeze(model), file)
    return file


def write_onnx(frozen: Any, file: pathlib.Path) -> None:
    """Writes what `freeze` or `freeze_probabilities` returned as an ONNX file."""
    import tf2onnx

    written, _ = tf2onnx.convert.from_function(frozen, frozen.input_signature)
    file.write_bytes(written.SerializeToString())


def export_openvino(model: CrossViT, path: str | os.PathLike) -> pathlib.Path:
    """Writes OpenVINO's IR in float32: `path`, and a file with the ending ".bin" beside it.

    Arguments, result and errors are those of `export_onnx`, but the name ends in ".xml".
    """
    file = _check("export_openvino", model, path, ".xml")
    check_packages("export_openvino", "openvino")
    import openvino

    converted = openvino.convert_model(_freeze(model).get_concrete_function())
    openvino.save_model(converted, file, compress_to_fp16=False)
    return file


def export_litert(
    model: CrossViT,
    path: str | os.PathLike,
    *,
    int8: bool = False,
    samples: np.ndarray | None = None,
) -> pathlib.Path:
    """Writes a LiteRT (TFLite) file that uses only built-in operators.

    Args:
        model: As in `export_onnx`.
        path: As in `export_onnx`, but the name ends in ".tflite".
        int8: Whether weights are quantised to 8 bits, which makes the file a quarter of the
            size. Without `samples`, the runtime quantises activations by their range in each
            batch.
        samples: With `int8`, about a hundred representative images `(n, H, W, 3)` in 0..255.
            The ranges of their activations are measured and written to the file, which then
            computes in integers, as accelerators without floating point require. Input and
            output stay float32.

    Returns and raises as `export_onnx` does.
    """
    file = _check("export_litert", model, path, ".tflite")
    if samples is not None and not int8:
        raise ValueError("`samples` must be None unless int8=True. Received: int8=False")
    if samples is not None and (len(samples) == 0 or samples.shape[1:] != model.input_shape[1:]):
        raise ValueError(
            f"`samples` must be images (n, {', '.join(map(str, model.input_shape[1:]))}). "
            f"Received: shape {samples.shape}"
        )
    import tensorflow as tf

    holder = tf.Module()
    holder.frozen = _freeze(model)
    concrete = holder.frozen.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if samples is not None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ({"images": image[None]} for image in samples)
    with warnings.catch_warnings():
        # To measure, the converter uses an interpreter that TensorFlow itself deprecates.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter")
        file.write_bytes(converter.convert())
    return file


def _freeze(model):
    # Imported here, so that the package can be imported without TensorFlow.
    from keras_crossvit.export.frozen import freeze

    return freeze(model)


def _check(function, model, path, suffix):
    """The path, after model, path and backend have been checked."""
    check_classifier(model)
    check_float32(model)
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise ValueError(f"`path` must end in {suffix!r}. Received: path={str(path)!r}")
    check_backend(function)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
