"""The command line of the export recipe."""

import argparse
import pathlib

from keras_crossvit.export.formats import FORMATS, INT8_FORMATS
from keras_crossvit.models import presets


def parse_export(description, argv=None):
    """Reads the arguments.

    Args:
        description: What `--help` begins with.
        argv: The arguments; `None` for the process's own.

    Returns:
        `argparse.Namespace`: `format` as a list, `labels` as a list of names or None.

    Raises:
        SystemExit: With a message, if an argument is wrong.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=presets(), required=True)
    add("--weights", required=True, help="imagenet, imagenet-408 or a file")
    add("--output-dir", required=True)
    add("--format", default="saved_model", help=f"of {','.join(FORMATS)}")
    add("--labels", type=_lines, help="file with the name of a class per line")
    add("--classes", type=int, help="by default as many as labels, or 1000")
    add("--top-k", type=int, default=5, help="classes in an answer")
    add("--crop-ratio", type=float, help="of the evaluation transform")
    add("--int8", action="store_true", help=f"for {' and '.join(INT8_FORMATS)}")
    add("--dataset", help="to measure each file's accuracy: NAME or folder:PATH")
    add("--data-dir", help="where tensorflow-datasets keeps its data")
    add("--calibrate", type=int, default=0, help="training pictures for LiteRT's activations")
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
