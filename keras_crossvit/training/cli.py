"""The command line of a training recipe: a recipe's values, and what replaces them."""

import argparse
import dataclasses
import json

from keras_crossvit.training.config import TrainConfig

_FLAGS = ("model", "dataset", "data_dir", "output_dir", "strategy", "precision", "weights")
_INTEGER_FLAGS = ("epochs", "batch_size", "seed")


def parse_config(recipes, argv=None):
    """Reads a `TrainConfig` from the command line.

    Args:
        recipes: `{name: TrainConfig}`, the values of `--recipe`.
        argv: The arguments; `None` for the process's own.

    Returns:
        The recipe with the values of the flags in the place of its own. Fields without a
        flag are set by `--set field=value`, the value written as in JSON, or as plain text.

    Raises:
        SystemExit: With a message, if an argument is wrong.
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(recipes), required=True)
    for name in _FLAGS:
        parser.add_argument(_flag(name), default=argparse.SUPPRESS, help="replaces the recipe's")
    for name in _INTEGER_FLAGS:
        parser.add_argument(
            _flag(name), type=int, default=argparse.SUPPRESS, help="replaces the recipe's"
        )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other fields")
    arguments = vars(parser.parse_args(argv))
    recipe, settings = arguments.pop("recipe"), arguments.pop("set")
    try:
        changes = {**dict(_setting(text) for text in settings), **arguments}
        return dataclasses.replace(recipes[recipe], **changes)
    except ValueError as error:
        parser.error(str(error))


def _flag(name):
    return "--" + name.replace("_", "-")


def _setting(text):
    """`key=value` as `(key, value)`."""
    key, equals, value = text.partition("=")
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if not equals or key not in fields:
        raise ValueError(
            f"`--set` must be KEY=VALUE with a key of {', '.join(sorted(fields))}. "
            f"Received: {text!r}"
        )
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
