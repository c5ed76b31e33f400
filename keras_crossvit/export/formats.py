"""All formats by their names, and how right an exported file is."""

import gc
import pathlib
import warnings

import numpy as np

from keras_crossvit.export.load import load_exported
from keras_crossvit.export.runtimes import export_litert, export_onnx, export_openvino
from keras_crossvit.export.saved_model import export_saved_model
from keras_crossvit.models import CrossViT

_SUFFIXES = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
FORMATS = tuple(_SUFFIXES)
INT8_FORMATS = ("saved_model", "litert")


def export(model, name, directory, *, int8=False, samples=None, **serving):
    """Writes a model in one format.

    Args:
        model: A classifier of this package that computes in float32; it is not changed.
        name: A name in `FORMATS`.
        directory: Folder to write to. A SavedModel becomes its next version; the others are
            files of the model's name, with "_int8" after it if they are that.
        int8: Whether weights are rounded to 8 bits, for a name in `INT8_FORMATS`: a
            SavedModel by `quantized`, LiteRT by its own converter.
        samples: As in `export_litert`, for LiteRT.
        **serving: Further arguments of `export_saved_model`, which only a SavedModel uses.

    Returns:
        The `pathlib.Path` of the folder or file.

    Raises:
        ValueError: If an argument is not allowed.
    """
    allowed = INT8_FORMATS if int8 else FORMATS
    if name not in allowed:
        raise ValueError(
            f"`name` must be one of {', '.join(allowed)} with int8={int8}. Received: name={name!r}"
        )
    if name == "saved_model":
        return export_saved_model(quantized(model) if int8 else model, directory, **serving)
    path = pathlib.Path(directory) / f"{model.name}{'_int8' if int8 else ''}{_SUFFIXES[name]}"
    if name == "litert":
        return export_litert(model, path, int8=int8, samples=samples)
    return {"onnx": export_onnx, "openvino": export_openvino}[name](model, path)


def quantized(model):
    """A copy of a model after `model.quantize("int8")`: its dense layers round to 8 bits."""
    copy = CrossViT.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    gc.freeze()  # quantize collects garbage once a layer, and TensorFlow holds much of it
    try:
        with warnings.catch_warnings():
            # One for each layer that has nothing to round.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            copy.quantize("int8")
    finally:
        gc.unfreeze()
    return copy


def top1(path, batches):
    """The share of pictures that an exported file classifies rightly, in its own runtime.

    Args:
        path: As in `load_exported`.
        batches: `(images, one-hot labels, weights)`, as of `evaluation_batches`.
    """
    run = load_exported(path)
    right = [
        (run(np.asarray(images)).argmax(-1) == np.asarray(labels).argmax(-1))[weights > 0]
        for images, labels, weights in batches
    ]
    return float(np.concatenate(right).mean())
