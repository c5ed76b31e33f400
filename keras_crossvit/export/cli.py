"""What the command `export` takes besides a model."""

import argparse
import pathlib

from keras_crossvit.common.checks import did_you_mean
from keras_crossvit.export.formats import FORMATS, INT8_FORMATS

_CALIBRATE = 300  # images; NNCF's own default


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments to a parser."""
    add = parser.add_argument
    add("--output-dir", required=True, help="where to write")
    add("--format", default="saved_model", help=f"one or more of {','.join(FORMATS)}")
    add("--labels", type=_lines, help="a file of class names, one per line")
    add("--top-k", type=int, default=5, help="number of classes in a server's answer")
    add("--max-batch-size", type=int, default=8, help="most images in a request to Triton")
    add("--crop-ratio", type=float, help="by default the run's, or the published one")
    add("--int8", action="store_true", help=f"quantise to 8 bits, for {', '.join(INT8_FORMATS)}")
    add(
        "--calibrate",
        type=int,
        help="how many training images to measure the ranges of activations with; OpenVINO needs "
        f"some ({_CALIBRATE} by default), LiteRT works without",
    )


def check_export(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Checks the parsed arguments, and turns `format` into a list.

    Raises:
        SystemExit: With a message, if an argument is invalid.
    """
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
    if calibrated and not arguments.dataset and arguments.source is None:  # a run has its data
        parser.error(f"--int8 of {calibrated[0]} needs --dataset, for images to calibrate with.")
    arguments.format = chosen


def calibration_images(arguments: argparse.Namespace, name: str) -> int:
    """How many training images a format is calibrated with."""
    if not (arguments.int8 and "samples" in FORMATS[name].takes):
        return 0
    return arguments.calibrate or (_CALIBRATE if FORMATS[name].int8_needs_samples else 0)


def _lines(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(error) from error
