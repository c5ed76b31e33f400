r"""Exports a model for serving and for other runtimes.

    crossvit export runs/mine --output-dir export
    crossvit export --model crossvit_15_dagger --weights imagenet --output-dir export
    crossvit export runs/digits --output-dir export --format litert,onnx --dataset digits

`saved_model` writes OUTPUT-DIR/VERSION/ for TensorFlow Serving, `triton` OUTPUT-DIR/MODEL/ for
Triton Inference Server, the others a file each. The classes are called as in the run, or as
ImageNet's.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from keras_crossvit.commands.shared import (
    FoundModel,
    add_exif,
    errors_in_one_line,
    find_model,
    parser_of,
)
from keras_crossvit.common.pixels import default_crop_ratio
from keras_crossvit.export.cli import add_export, check_export
from keras_crossvit.export.formats import export, top1
from keras_crossvit.models import CrossViT


def parse_export(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, the process's own if `argv` is `None`."""
    parser = parser_of(__doc__, "export")
    add_export(parser)
    add_exif(parser)
    arguments = parser.parse_args(argv)
    check_export(parser, arguments)
    return arguments


def main() -> None:
    """Exports by the process's arguments."""
    arguments = parse_export()
    with errors_in_one_line():
        found = find_model(arguments)
        crop_ratio = found.value("crop_ratio", arguments.crop_ratio)
        exif = found.value("exif_orientation", arguments.exif_orientation, default=True)
        samples, batches = _images(arguments, found, crop_ratio, exif)
        for name in arguments.format:
            path = export(
                found.model,
                name,
                arguments.output_dir,
                int8=arguments.int8,
                samples=samples,
                labels=arguments.labels,
                top_k=arguments.top_k,
                crop_ratio=crop_ratio,
                exif_orientation=exif,
                max_batch_size=arguments.max_batch_size,
            )
            accuracy = f" ({top1(path, batches):.2%} top-1)" if batches else ""
            print(f"{name}: {path}{accuracy}", flush=True)


def _images(
    arguments: argparse.Namespace,
    found: FoundModel,
    crop_ratio: float | None,
    exif_orientation: bool,
) -> tuple[Any, Any]:
    """Training images to calibrate by, and held-out batches to measure with; or `None`."""
    if not arguments.dataset:
        return None, None
    # What only this needs is imported here: an export does without KerasCV.
    from keras_crossvit.data.pipeline import evaluation_batches
    from keras_crossvit.data.sources import open_source

    model: CrossViT = found.model
    size, samples = model.input_shape[1:], None
    source = open_source(arguments.dataset, arguments.data_dir)
    reading = crop_ratio or default_crop_ratio(size), None, exif_orientation
    if arguments.calibrate:
        training = (source.train, model.classes, size, arguments.calibrate)
        samples = next(iter(evaluation_batches(*training, *reading)))[0].numpy()
    held_out = source.with_classes(model.labels).validation
    return samples, evaluation_batches(held_out, model.classes, size, 50, *reading)
