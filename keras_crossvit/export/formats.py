"""All formats by name, and the accuracy of an exported file."""

import gc
import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_crossvit.common.typing import Tensor
from keras_crossvit.export.load import load_exported
from keras_crossvit.export.runtimes import export_litert, export_onnx, export_openvino
from keras_crossvit.export.saved_model import export_saved_model
from keras_crossvit.models import CrossViT

_SUFFIXES = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
FORMATS = tuple(_SUFFIXES)
INT8_FORMATS = ("saved_model", "litert")


def export(
    model: CrossViT,
    name: str,
    directory: str | os.PathLike,
    *,
    int8: bool = False,
    samples: np.ndarray | None = None,
    **serving: Any,
) -> pathlib.Path:
    """Writes a model in one format.

    Args:
        model: A classifier of this package that computes in float32; it is not changed.
        name: A name in `FORMATS`.
        directory: Folder to write to. A SavedModel becomes its next version; other formats are
            files named after the model, with "_int8" appended if they are quantised.
        int8: Whether weights are quantised to 8 bits, only for a name in `INT8_FORMATS`: a
            SavedModel by `quantized`, LiteRT by its own converter.
        samples: As in `export_litert`; only used for LiteRT.
        **serving: Further arguments of `export_saved_model`; only used for a SavedModel.

    Returns:
        The path of the folder or file.

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


def quantized(model: CrossViT) -> CrossViT:
    """A copy of a model after `quantize("int8")`, which quantises its dense layers to 8 bits."""
    copy = CrossViT.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    gc.freeze()  # quantize collects garbage for each layer, slow with TensorFlow's many objects
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer that has nothing to quantise.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            copy.quantize("int8")
    finally:
        gc.unfreeze()
    return copy


def top1(path: str | os.PathLike, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> float:
    """The top-1 accuracy of an exported file, in [0, 1], run by its own runtime.

    Args:
        path: As in `load_exported`.
        batches: `(images, one-hot labels, sample weights)`, as from `evaluation_batches`.
    """
    run = load_exported(path)
    correct = [
        (run(np.asarray(images)).argmax(-1) == np.asarray(labels).argmax(-1))[counted > 0]
        for images, labels, counted in batches
    ]
    return float(np.concatenate(correct).mean())
