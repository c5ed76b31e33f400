"""Exports a model repository for Triton Inference Server, with the model as an ONNX file."""

import os
import pathlib
import tempfile
from collections.abc import Iterable

from keras_crossvit.common.checks import check_folder, check_local, check_positive_int
from keras_crossvit.common.files import write_text
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.export.checks import (
    check_backend,
    check_classifier,
    check_packages,
    input_prefixes,
)
from keras_crossvit.export.precision import in_float32
from keras_crossvit.export.runtimes import to_onnx
from keras_crossvit.export.versions import class_names, publish
from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import image_shape

# A ModelConfig (model_config.proto of Triton). A batch runs when it is full or its first
# request has waited 5 ms, as in recipes/serving/batching.config.
_CONFIG = """\
# Written by keras_crossvit; each export replaces it, so keep changes elsewhere.
backend: "onnxruntime"
max_batch_size: {max_batch_size}
{inputs}
output {{
  name: "probabilities"
  data_type: TYPE_FP32
  dims: [ {classes} ]
  label_filename: "labels.txt"
}}
dynamic_batching {{
  max_queue_delay_microseconds: 5000
  default_queue_policy {{ max_queue_size: 100 }}
}}
model_warmup {{
  name: "one"
  batch_size: 1
{warmup}
}}
# What a client has to know to prepare pictures as in evaluation, and how many classes to name.
{parameters}
"""
_INPUT = """\
input {{
  name: "{name}"
  data_type: TYPE_FP32
  dims: [ {dims} ]
}}"""
_WARMUP = """\
  inputs {{
    key: "{name}"
    value {{ data_type: TYPE_FP32 dims: [ {dims} ] zero_data: true }}
  }}"""
_PARAMETER = 'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def export_triton(
    model: CrossViT,
    directory: str | os.PathLike,
    labels: Iterable[str] | None = None,
    top_k: int = 5,
    *,
    crop_ratio: float | None = None,
    exif_orientation: bool = True,
    max_batch_size: int = 8,
) -> pathlib.Path:
    """Writes `directory/NAME/`, a model in a repository that Triton Inference Server can load.

    NAME is the model's name. The folder holds `config.pbtxt`, `labels.txt` and
    `<version>/model.onnx`, which takes `images`, float32 `(N, H, W, C)`, pixels in 0..255
    whatever `include_preprocessing` was, and answers `probabilities` `(N, classes)`. A model with
    `inputs="separate"` takes `small_images` and `large_images`. With Triton's classification
    extension, the server itself names classes.

    Triton decodes no images: the client does, as `recipes/serving/client.py` shows, with the
    parameters `crop_ratio`, `exif_orientation` and `top_k` of `config.pbtxt`.

    The version is 1, or one more than the highest. It appears under its number only when it is
    complete, after `labels.txt` and `config.pbtxt`, each of which is replaced in one step, and
    only if it changes.

    Args:
        model: As in `export_onnx`, for images of 1 or 3 channels. If its
            `classifier_activation` is `None` or "linear", the probabilities are the softmax of
            its output, with one class the sigmoid; otherwise they are its output.
        directory: The model repository; created if it does not exist.
        labels: As in `export_saved_model`.
        top_k: Number of classes that a client should name; positive, at most all of them.
        crop_ratio: As in `export_saved_model`.
        exif_orientation: Whether a client should turn images upright according to their EXIF.
        max_batch_size: The most images that a request may hold, and that are computed together.

    Returns:
        The path `directory/NAME/<version>`.

    Raises:
        ValueError: If an argument is not allowed, or the model uses an operator that ONNX lacks;
            then nothing is written.
        ImportError: If a package is missing; the message names the extra to install.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    check_classifier(model, pairs=True, files=True)
    names = class_names(model, labels)
    top_k = min(check_positive_int("top_k", top_k), len(names))
    check_positive_int("max_batch_size", max_batch_size)
    shape = image_shape(model)
    ratio = crop_ratio_for(shape, crop_ratio)
    folder = check_folder("directory", check_local("directory", directory) / model.name)
    check_backend("export_triton")
    check_packages("export_triton", "tf2onnx", "onnx")
    model = in_float32(model)
    parameters = {
        "crop_ratio": ratio,
        "exif_orientation": str(bool(exif_orientation)).lower(),
        "top_k": top_k,
    }
    inputs = [f"{prefix}images" for prefix in input_prefixes(model)]
    config = _config(inputs, shape, len(names), max_batch_size, parameters)
    # Imported here, so that the package can be imported without TensorFlow.
    from keras_crossvit.export.frozen import freeze_probabilities

    onnx = to_onnx(freeze_probabilities(model))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as aside:
        written = pathlib.Path(aside, "version")
        written.mkdir()
        (written / "model.onnx").write_bytes(onnx)
        _replace(folder / "labels.txt", "".join(f"{name}\n" for name in names))
        _replace(folder / "config.pbtxt", config)
        return publish(written, folder)


def _config(inputs, shape, classes, max_batch_size, parameters):
    """The text of `config.pbtxt`."""
    dims = ", ".join(map(str, shape))
    return _CONFIG.format(
        max_batch_size=max_batch_size,
        inputs="\n".join(_INPUT.format(name=name, dims=dims) for name in inputs),
        classes=classes,
        warmup="\n".join(_WARMUP.format(name=name, dims=dims) for name in inputs),
        parameters="\n".join(
            _PARAMETER.format(key=key, value=value) for key, value in parameters.items()
        ),
    )


def _replace(path, text):
    """Writes a file, unless it is the same already: a server reloads a model when it changes."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
