"""The command line of the export recipe."""

import argparse
import pathlib
from collections.abc import Sequence

from keras_crossvit.export.formats import FORMATS, INT8_FORMATS
from keras_crossvit.models import presets


def parse_export(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the arguments.

    Args:
        description: The text at the start of `--help`.
        argv: The arguments; `None` for those of the process.

    Returns:
        The arguments, with `format` as a list and `labels` as a list of names or None.

    Raises:
        SystemExit: With a message, if an argument is invalid.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=presets(), required=True)
    add("--weights", required=True, help="imagenet, imagenet-408 or a file")
    add("--output-dir", required=True)
    add("--format", default="saved_model", help=f"of {','.join(FORMATS)}")
    add("--labels", type=_lines, help="file with the class names, one per line")
    add("--classes", type=int, help="by default the number of labels, or 1000")
    add("--top-k", type=int, default=5, help="classes in the response of classify_bytes")
    add("--crop-ratio", type=float, help="of the evaluation transform")
    add(
        "--exif-orientation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether classify_bytes turns images upright as their EXIF says",
    )
    add("--int8", action="store_true", help=f"for {' and '.join(INT8_FORMATS)}")
    add("--dataset", help="to measure the accuracy of each file: NAME or folder:PATH")
    add("--data-dir", help="where tensorflow-datasets keeps its data")
    add(
        "--calibrate",
        type=int,
        default=0,
        help="training images to calibrate LiteRT's activations",
    )
    arguments = parser.parse_args(argv)
    allowed = INT8_FORMATS if arguments.int8 else FORMATS
    chosen = arguments.format.split(",")
    if not set(chosen) <= set(allowed):
        parser.error(f"--format must be of {','.join(allowed)}. Received: {arguments.format}")
    if arguments.calibrate and not (arguments.int8 and arguments.dataset):
        parser.error("--calibrate needs --int8 and --dataset.")
    arguments.format = chosen
    arguments.classes = arguments.classes or len(arguments.labels or range(1000))
    return arguments


def _lines(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise argparse.ArgumentTypeError(error) from error
