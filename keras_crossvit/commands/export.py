r"""Exports a model for serving and for other runtimes.

    crossvit export runs/mine --output-dir export
    crossvit export --model crossvit_15_dagger --weights imagenet --output-dir export
    crossvit export runs/digits --output-dir export --format litert,onnx --dataset digits

`saved_model` writes OUTPUT-DIR/VERSION/ for TensorFlow Serving, `triton` OUTPUT-DIR/MODEL/ for
Triton Inference Server, the others one file each. The classes are named as in the run, or as in
ImageNet.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_crossvit.commands.shared import (
    FoundModel,
    add_data,
    add_reading,
    data_values,
    errors_in_one_line,
    find_data,
    find_model,
    parser_of,
)
from keras_crossvit.common.checks import did_you_mean, expanded
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.export.checks import check_classifier
from keras_crossvit.export.formats import FORMATS, INT8_FORMATS, export, top1
from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import image_shape

_CALIBRATE = 300  # images; NNCF's own default


def parse_export(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, the process's own if `argv` is `None`."""
    parser = parser_of(__doc__, "export", classes="as many as --labels has, or 1000")
    add = parser.add_argument
    add("--output-dir", required=True, help="where to write")
    add("--format", default="saved_model", help=f"one or more of {','.join(FORMATS)}")
    add("--labels", type=_lines, help="a file of class names, one per line")
    add("--top-k", type=int, default=5, help="number of classes in a server's answer")
    add("--max-batch-size", type=int, default=8, help="most images in a request to Triton")
    add("--int8", action="store_true", help=f"quantise to 8 bits, for {', '.join(INT8_FORMATS)}")
    add(
        "--calibrate",
        type=int,
        help="how many training images to measure the ranges of activations with; OpenVINO needs "
        f"some ({_CALIBRATE} by default), LiteRT works without",
    )
    add_data(
        parser, "to measure the accuracy of each file, and to calibrate (by default the run's)"
    )
    add_reading(parser)
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _check(parser, arguments):
    """Checks the parsed arguments, and turns `format` into a list."""
    allowed = INT8_FORMATS if arguments.int8 else FORMATS
    chosen = arguments.format.split(",")
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        parser.error(
            f"--format must be one or more of {','.join(allowed)}"
            f"{' with --int8' if arguments.int8 else ''}. Received: {arguments.format}"
            f"{did_you_mean(unknown[0], allowed)}"
        )
    if arguments.calibrate is not None:
        if arguments.calibrate < 1:
            parser.error(f"--calibrate must be positive. Received: {arguments.calibrate}")
        if not arguments.int8:
            parser.error("--calibrate needs --int8.")
    calibrated = [name for name in chosen if calibration_images(arguments, name)]
    if arguments.calibrate is not None and not calibrated:
        able = ", ".join(name for name in INT8_FORMATS if "samples" in FORMATS[name].takes)
        parser.error(f"--calibrate is for {able}. Received: --format {','.join(chosen)}")
    if calibrated and not arguments.dataset and arguments.source is None:  # a run has its data
        parser.error(f"--int8 of {calibrated[0]} needs --dataset, for images to calibrate with.")
    for name in ("data_dir", "split"):
        if getattr(arguments, name) is not None and not calibrated and not arguments.dataset:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} needs --dataset. Received: {getattr(arguments, name)}")
    arguments.format = chosen


def calibration_images(arguments: argparse.Namespace, name: str) -> int:
    """How many training images a format is calibrated with."""
    if not (arguments.int8 and "samples" in FORMATS[name].takes):
        return 0
    return arguments.calibrate or (_CALIBRATE if FORMATS[name].int8_needs_samples else 0)


def _lines(path):
    try:
        return expanded(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(error) from error


def main() -> None:
    """Exports as the process's arguments say."""
    arguments = parse_export()
    with errors_in_one_line():
        found = find_model(arguments)
        reading = found.reading(arguments)
        dataset = data_values(arguments, found.values)["dataset"]
        samples, batches = _images(arguments, found, **reading)
        for name in arguments.format:
            count = calibration_images(arguments, name)
            path = export(
                found.model,
                name,
                arguments.output_dir,
                int8=arguments.int8,
                samples=samples[:count] if count else None,
                labels=arguments.labels,
                top_k=arguments.top_k,
                **reading,
                max_batch_size=arguments.max_batch_size,
            )
            print(f"{name}: {path}{_accuracy(path, name, batches, dataset)}", flush=True)


def _accuracy(path, name, batches, dataset):
    """The top-1 of a file in each of its precisions, as text; empty without data."""
    if not batches:
        return ""
    from keras_crossvit.data.pipeline import labels_in_one_line

    first, *others = FORMATS[name].precisions
    with labels_in_one_line(dataset):
        said = [f"{top1(path, batches, first):.2%} top-1"]
        said += [f"{top1(path, batches, other):.2%} in {other}" for other in others]
    return f" ({', '.join(said)})"


def _images(
    arguments: argparse.Namespace,
    found: FoundModel,
    crop_ratio: float | None,
    exif_orientation: bool,
) -> tuple[Any, Any]:
    """Training images to calibrate with, and held-out batches to measure on; or `None`.

    What has to be calibrated takes the run's own data unless others are given.
    """
    count = max(calibration_images(arguments, name) for name in arguments.format)
    if not arguments.dataset and not count:
        return None, None
    # Imported here, since only this needs it: an export does without KerasCV.
    from keras_crossvit.data.pipeline import evaluation_batches
    from keras_crossvit.data.sources.splits import PartOfSplit

    model: CrossViT = found.model
    check_classifier(model, files=True)
    size, samples = image_shape(model), None
    reading = crop_ratio_for(size, crop_ratio), None, exif_orientation
    source = find_data(arguments, found.values, with_training=count > 0)
    held_out = source.with_classes(model.labels).validation
    if count:
        # From all over the split: the first ones of a folder are of one class.
        rows = np.linspace(0, source.train.size - 1, min(count, source.train.size))
        part = PartOfSplit(source.train, rows.astype("int64"))
        training = (part, len(source.class_names), size, count)
        images, _, counted = next(iter(evaluation_batches(*training, *reading)))
        samples = images.numpy()[counted.numpy() > 0]  # without those that cannot be read
    return samples, evaluation_batches(held_out, model.classes, size, 50, *reading)
