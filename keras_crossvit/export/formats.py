"""The table of formats, and the accuracy of an exported file."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from keras_crossvit.common.checks import check_labels
from keras_crossvit.common.typing import Tensor
from keras_crossvit.export.load import load_exported
from keras_crossvit.export.precision import quantized
from keras_crossvit.export.runtimes import export_litert, export_onnx, export_openvino
from keras_crossvit.export.saved_model import export_saved_model
from keras_crossvit.export.triton import export_triton
from keras_crossvit.models import CrossViT


@dataclasses.dataclass(frozen=True)
class Format:
    """One format that `export` writes.

    Args:
        name: What users call it.
        write: The function that writes it: takes a model and a path, returns what was written.
        suffix: What a file's name ends in; "" where the path of `write` is a folder for versions.
        takes: The keyword arguments of `export` that are passed on to `write`.
        int8_needs_samples: Whether quantising needs images to measure activations with.
        precisions: The values of `precision` in `load_exported` that a file can be computed in.
    """

    name: str
    write: Callable[..., pathlib.Path]
    suffix: str = ""
    takes: tuple[str, ...] = ()
    int8_needs_samples: bool = False
    precisions: tuple[str, ...] = ("float32",)

    @property
    def int8(self) -> bool:
        """Whether weights can be quantised to 8 bits."""
        return "int8" in self.takes


def export(
    model: CrossViT,
    name: str,
    directory: str | os.PathLike,
    *,
    int8: bool = False,
    samples: np.ndarray | None = None,
    labels: Iterable[str] | None = None,
    top_k: int = 5,
    crop_ratio: float | None = None,
    exif_orientation: bool = True,
    max_batch_size: int = 8,
) -> pathlib.Path:
    """Writes a model in one format.

    Args:
        model: A classifier of this package; it is not changed. For other formats than a
            SavedModel it is as in `export_onnx`.
        name: A name in `FORMATS`.
        directory: Folder to write to. A SavedModel becomes its next version; a model for Triton,
            the next version of its own folder there; other formats are files named after the
            model, with "_int8" appended if they are quantised.
        int8: Whether weights are quantised to 8 bits, if the format has `Format.int8`: a
            SavedModel by `quantized`, LiteRT by its own converter, OpenVINO by NNCF.
        samples: As in `export_litert` and `export_openvino`; only used for these.
        labels: As in `export_saved_model`, like `top_k`, `crop_ratio` and
            `exif_orientation`; only used for a SavedModel and for Triton.
        top_k: Number of classes that are returned.
        crop_ratio: Crop ratio of the evaluation.
        exif_orientation: Whether images are turned upright.
        max_batch_size: As in `export_triton`; only used for Triton.

    Returns:
        The path of the folder or file.

    Raises:
        ValueError: If an argument is not allowed.
    """
    given = {
        "int8": int8,
        "samples": samples,
        "labels": labels,
        "top_k": top_k,
        "crop_ratio": crop_ratio,
        "exif_orientation": exif_orientation,
        "max_batch_size": max_batch_size,
    }
    allowed = INT8_FORMATS if int8 else FORMATS
    if name not in allowed:
        raise ValueError(
            f"`name` must be one of {', '.join(allowed)} with int8={int8}. Received: name={name!r}"
        )
    if labels is not None:  # also where they are not used, so that a mistake does not go unseen
        given["labels"] = check_labels(labels, model.classes)
    chosen, path = FORMATS[name], pathlib.Path(directory)
    if chosen.suffix:
        path /= f"{model.name}{'_int8' if int8 else ''}{chosen.suffix}"
    return chosen.write(model, path, **{key: given[key] for key in chosen.takes})


def _write_saved_model(model, directory, int8, **serving):
    return export_saved_model(quantized(model) if int8 else model, directory, **serving)


FORMATS = {
    row.name: row
    for row in (
        Format(
            "saved_model",
            _write_saved_model,
            takes=("int8", "labels", "top_k", "crop_ratio", "exif_orientation"),
        ),
        Format("onnx", export_onnx, ".onnx"),
        Format("litert", export_litert, ".tflite", takes=("int8", "samples")),
        Format(
            "openvino",
            export_openvino,
            ".xml",
            takes=("int8", "samples"),
            int8_needs_samples=True,
            precisions=("float32", "bfloat16"),
        ),
        Format(
            "triton",
            export_triton,
            takes=("labels", "top_k", "crop_ratio", "exif_orientation", "max_batch_size"),
        ),
    )
}
INT8_FORMATS = tuple(name for name, row in FORMATS.items() if row.int8)


def top1(
    path: str | os.PathLike,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    precision: str = "float32",
) -> float:
    """The top-1 accuracy of an exported file, in [0, 1], run by its own runtime.

    For images with several labels, it is the share whose highest class is one of them.

    Args:
        path: As in `load_exported`.
        batches: `(images, labels, sample weights)`, as from `evaluation_batches`; labels are
            zeros and ones, `(B, classes)`.
        precision: As in `load_exported`.

    Raises:
        ValueError: If no image counts.
    """
    run = load_exported(path, precision)
    correct = [np.empty(0)]
    for images, labels, counted in batches:
        first = run(np.asarray(images)).argmax(-1)
        correct.append(np.asarray(labels)[np.arange(len(first)), first][counted > 0])
    found = np.concatenate(correct)
    if not len(found):
        raise ValueError("`batches` must hold an image that can be read. Received: none")
    return float(found.mean())
