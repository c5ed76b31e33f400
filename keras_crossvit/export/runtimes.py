"""Exports to other runtimes: ONNX, LiteRT and OpenVINO.

The exported models take `images`, float32 `(N, H, W, 3)` with any N >= 1 and pixels in
0..255, whatever `include_preprocessing` was. They return what the model returns: `logits` if its
`classifier_activation` is `None` or "linear", otherwise `probabilities`.
"""

import contextlib
import logging
import os
import pathlib
import re
import sys
import tempfile
import warnings
from typing import Any

import numpy as np

from keras_crossvit.common.checks import check_local
from keras_crossvit.common.files import write_atomically
from keras_crossvit.export.checks import check_backend, check_classifier, check_packages
from keras_crossvit.export.precision import in_float32
from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import image_shape


def export_onnx(model: CrossViT, path: str | os.PathLike) -> pathlib.Path:
    """Writes an ONNX file.

    Args:
        model: A classifier of this package that computes in float32 or in mixed precision, of
            which a copy that computes in float32 is written.
        path: The file to write; the name ends in ".onnx". Its folder is created if needed.

    Returns:
        The path of the file.

    Raises:
        ValueError: If an argument is not allowed, or the model uses an operator that ONNX lacks;
            then no file is written.
        ImportError: If a package is missing; the message names the extra to install.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    model, file = _check("export_onnx", model, path, ".onnx")
    check_packages("export_onnx", "tf2onnx", "onnx")
    content = to_onnx(_freeze(model))
    with write_atomically(file) as aside:
        aside.write_bytes(content)
    return file


def to_onnx(frozen: Any) -> bytes:
    """What `freeze` or `freeze_probabilities` returned, as the content of an ONNX file.

    Raises:
        ValueError: If the model uses an operator that ONNX lacks.
    """
    import onnx
    import tf2onnx

    converted, _ = tf2onnx.convert.from_function(frozen, frozen.input_signature)
    # tf2onnx only logs what it cannot convert, and leaves TensorFlow's operator in the graph.
    used = {(node.op_type, node.domain) for node in _nodes(converted.graph)}
    lacking = sorted(name for name, domain in used if not onnx.defs.has(name, domain))
    if lacking:
        raise ValueError(
            "`model` must use operators that ONNX has. "
            f"Received: a model that uses TensorFlow's {', '.join(lacking)}"
        )
    return converted.SerializeToString()


def _nodes(graph):
    """The nodes of an ONNX graph and of the graphs within them, which loops and branches have."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def export_openvino(
    model: CrossViT,
    path: str | os.PathLike,
    *,
    int8: bool = False,
    samples: np.ndarray | None = None,
) -> pathlib.Path:
    """Writes OpenVINO's IR: `path`, and a file with the ending ".bin" beside it.

    Args:
        model: As in `export_onnx`.
        path: As in `export_onnx`, but the name ends in ".xml".
        int8: Whether products with weights are computed in 8 bits, both weights and activations,
            by NNCF's post-training quantisation for transformers. Those of attention's queries,
            keys and values are not, nor is the resize of a branch's image. Otherwise everything
            is in float32.
        samples: With `int8`, which needs them, some hundred representative images
            `(n, H, W, C)` in 0..255, with which the ranges of the activations are measured.

    Returns and raises as `export_onnx` does.
    """
    model, file = _check("export_openvino", model, path, ".xml")
    samples = _checked_samples(model, int8, samples)
    if int8 and samples is None:
        raise ValueError("`samples` must be images with int8=True. Received: samples=None")
    check_packages("export_openvino", "openvino")
    if int8:
        check_packages("export_openvino with int8=True", "nncf", extra="tensorflow,runtimes,int8")
    import openvino

    converted = openvino.convert_model(_freeze(model).get_concrete_function())
    if int8:
        converted = _quantized(converted, samples)
    # Neither file is paired with another export's: both are complete before either is replaced.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as folder:
        aside = pathlib.Path(folder, file.name)
        openvino.save_model(converted, aside, compress_to_fp16=False)
        for ending in (".bin", ".xml"):
            os.replace(aside.with_suffix(ending), file.with_suffix(ending))
    return file


def _quantized(converted, samples):
    """An OpenVINO model, quantised by NNCF."""
    import nncf
    import openvino

    # If a batch could be empty, OpenVINO would not compile some models: it then mishandles the
    # scales of channels across a reshape where there are more tokens than channels.
    shape = converted.inputs[0].get_partial_shape()
    shape[0] = openvino.Dimension(1, -1)
    converted.reshape(shape)
    with _errors_alone("nncf"), contextlib.redirect_stdout(sys.stderr):  # its progress bars
        return nncf.quantize(
            converted,
            nncf.Dataset([image[np.newaxis] for image in samples]),
            subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=_products_without_weights(converted)),
        )


@contextlib.contextmanager
def _errors_alone(name):
    """Makes a logger log only errors; the levels of its handlers are left to their owners."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _products_without_weights(converted):
    """The names of the products that are no faster in 8 bits, only less exact.

    In 8 bits, attention first writes queries, keys and values three times: as float32, rounded,
    and in another order. A resize multiplies pixels by its own weights.
    """

    def weighted(operation):
        weights = operation.input(1).get_source_output().get_node()
        of_resize = re.search("/(small|large)_resize", operation.get_friendly_name())
        return weights.get_type_name() == "Constant" and not of_resize

    return [
        operation.get_friendly_name()
        for operation in converted.get_ops()
        if operation.get_type_name() == "ScaledDotProductAttention"
        or (operation.get_type_name() == "MatMul" and not weighted(operation))
    ]


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
    model, file = _check("export_litert", model, path, ".tflite")
    samples = _checked_samples(model, int8, samples)
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
        content = converter.convert()
    with write_atomically(file) as aside:
        aside.write_bytes(content)
    return file


def _checked_samples(model, int8, samples):
    """The samples as one float32 array; `None` stays as it is."""
    if samples is None:
        return None
    if not int8:
        raise ValueError("`samples` must be None unless int8=True. Received: int8=False")
    shape = image_shape(model)
    allowed = f"`samples` must be images (n, {', '.join(map(str, shape))})"
    try:
        samples = np.asarray(samples, "float32")
    except (TypeError, ValueError) as error:  # images of several sizes, or no numbers
        raise ValueError(f"{allowed}. Received: {error}") from error
    if samples.shape[1:] != shape or len(samples) == 0:
        raise ValueError(f"{allowed}. Received: shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{allowed} of finite numbers. Received: NaN or infinity")
    return samples


def _freeze(model):
    # Imported here, so that the package can be imported without TensorFlow.
    from keras_crossvit.export.frozen import freeze

    return freeze(model)


def _check(function, model, path, suffix):
    """The model in float32 and the path, after model, path and backend have been checked."""
    check_classifier(model)
    path = check_local("path", path)
    if path.suffix != suffix:
        raise ValueError(f"`path` must end in {suffix!r}. Received: path={str(path)!r}")
    check_backend(function)
    model = in_float32(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    return model, path
