"""Files for other runtimes: ONNX, LiteRT and OpenVINO.

All take `images`, float32 `(N, H, W, 3)`, pixels in 0..255 whatever `include_preprocessing`
was, N free, and answer what the model answers: `logits` if its `classifier_activation` is
`None` or "linear", else `probabilities`.
"""

import pathlib
import warnings

from keras_crossvit.export.classifier import check_backend, check_classifier
from keras_crossvit.export.packages import require


def export_onnx(model, path):
    """Writes an ONNX file.

    Args:
        model: A classifier of this package that computes in float32.
        path: Where to write it; its folder is made if need be. The name ends in ".onnx".

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        ValueError: If an argument is not allowed.
        ImportError: If a package is absent; the message names the extra to install.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    path = _check("export_onnx", model, path, ".onnx")
    require("export_onnx", "tf2onnx", "onnx")
    import tf2onnx

    frozen = _freeze(model)
    written, _ = tf2onnx.convert.from_function(frozen, frozen.input_signature)
    path.write_bytes(written.SerializeToString())
    return path


def export_openvino(model, path):
    """Writes OpenVINO's intermediate representation, in float32: `path` and a ".bin" beside it.

    Takes, returns and raises as `export_onnx` does, but the name ends in ".xml".
    """
    path = _check("export_openvino", model, path, ".xml")
    require("export_openvino", "openvino")
    import openvino

    converted = openvino.convert_model(_freeze(model).get_concrete_function())
    openvino.save_model(converted, path, compress_to_fp16=False)
    return path


def export_litert(model, path, *, int8=False, samples=None):
    """Writes a LiteRT (TFLite) file of built-in operators only.

    Args:
        model: As of `export_onnx`.
        path: As of `export_onnx`, but the name ends in ".tflite".
        int8: Whether weights are rounded to 8 bits, which makes a quarter of the size.
            Without `samples` the runtime rounds activations by the range it sees.
        samples: With `int8`, images `(n, H, W, 3)` in 0..255, some hundred of the kind that
            will come. Their activations' ranges are measured and written to the file, which
            then computes in integers, as accelerators without floating point want it;
            input and output stay float32.

    Returns and raises: as `export_onnx`.
    """
    path = _check("export_litert", model, path, ".tflite")
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
        # The converter measures by the interpreter that TensorFlow itself deprecates.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter")
        path.write_bytes(converter.convert())
    return path


def _freeze(model):
    # TensorFlow is imported here, so that the package can be imported without it.
    from keras_crossvit.export.frozen import freeze

    return freeze(model)


def _check(function, model, path, suffix):
    """The path, once model, path and backend are known to be right."""
    check_classifier(model)
    policies = {layer.dtype_policy.name for layer in model.layers} - {"float32"}
    if policies:
        raise ValueError(
            "`model` must compute in float32: build it under that policy and give it these "
            f"weights. Received: the policies {sorted(policies)}"
        )
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise ValueError(f"`path` must end in {suffix!r}. Received: path={str(path)!r}")
    check_backend(function)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
