"""The command line of a training recipe: a recipe's values, and what replaces them."""

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_crossvit.common.checks import did_you_mean, in_one_line
from keras_crossvit.training.config import PRECISIONS, STRATEGIES, TrainConfig
from keras_crossvit.training.dry_run import dry_run
from keras_crossvit.training.proof import classify_held_out_picture
from keras_crossvit.training.recipes import find_recipe
from keras_crossvit.training.run import train
from keras_crossvit.training.strategy import asks_others

_FLAGS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "NAME", "help": "a preset, e.g. crossvit_15_dagger"},
    "dataset": {"metavar": "NAME", "help": "a TensorFlow dataset, folder:PATH or csv:FILE"},
    "data_dir": {"metavar": "DIR", "help": "where tensorflow-datasets keeps its data"},
    "output_dir": {"metavar": "DIR", "help": "where the run writes, and resumes from"},
    "epochs": {"type": int, "metavar": "N", "help": "passes over the training images"},
    "batch_size": {"type": int, "metavar": "N", "help": "images a step, on all replicas"},
    "strategy": {
        "choices": STRATEGIES,
        "help": "auto, the default of the recipes, takes the GPUs, machines or TPU that it finds",
    },
    "precision": {"choices": PRECISIONS, "help": "Keras dtype policy"},
    "seed": {"type": int, "metavar": "N", "help": "of weights, data order and augmentation"},
    "weights": {
        "metavar": "W",
        "help": "imagenet, imagenet-408, a file, hf://OWNER/NAME, or none",
    },
}
_RESTARTS = "KERAS_CROSSVIT_RESTARTS"  # how many times this process has restarted itself
_PYTHONS_WORDS = {"None": "null", "True": "true", "False": "false"}  # JSON's are others
# How TensorFlow tells the remaining workers that one is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def main(
    recipes: Mapping[str, TrainConfig], argv: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Trains as the command line says, and prints the outcome.

    Args:
        recipes: `{name: TrainConfig}`, the choices of `--recipe`.
        argv: The arguments; `None` for the process's own.

    Returns:
        What `train` returns, or `None` after `--dry-run`.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)  # of tensorflow-datasets
    config, only_check = parse_config(recipes, argv)
    try:
        if only_check:
            dry_run(config)
            return None
        result = train(config)
        if result["export"] is not None:
            _print_summary(config, result)
        return result
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        sys.exit(in_one_line(error))
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. The same command goes on from the last checkpoint in "
            f"{config.output_dir}, if there is one; SIGTERM saves one first.",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGINT)
    except _LOST as error:
        if not asks_others(config.strategy):  # a storage service, for instance
            sys.exit(in_one_line(error))
        return _start_again(error, config.max_restarts)


def _print_summary(config, result):
    picture, truth, ranking = classify_held_out_picture(
        result["source"], result["export"], config.output_dir
    )
    name, score = ranking[0]
    shown = {"top5_accuracy": "top-5", "mean_average_precision": "mean average precision"}
    more = "".join(f", {result[k]:.2%} {name}" for k, name in shown.items() if k in result)
    best = ""
    if "best_epoch" in result:
        value, file = result[f"best_{config.best}"], os.path.join(config.output_dir, "best.keras")
        best = f"\nbest {config.best}: {value:.4f} in epoch {result['best_epoch'] + 1}, {file}"
    print(
        f"\nheld-out accuracy: {result['accuracy']:.2%} top-1{more}{best}"
        f"\nSavedModel: {result['export']}"
        f"\nthe SavedModel on {picture}: {name} ({score:.1%}); it is {truth}"
    )


def _start_again(error, most):
    """Replaces this process with itself, which waits for the lost worker and goes on.

    TensorFlow cannot take a worker back into a running cluster, so all of them start again from
    the last checkpoint: the lost one through its scheduler, the others here.
    """
    reason, restarts = type(error).__name__, int(os.environ.get(_RESTARTS, "0"))
    if restarts == most:
        sys.exit(
            f"A worker was lost ({reason}). This was the last of max_restarts={most} restarts."
        )
    print(
        f"\nA worker was lost ({reason}). Waiting for it; training goes on from the last "
        f"checkpoint. Restart {restarts + 1} of at most {most}.",
        flush=True,
    )
    os.environ[_RESTARTS] = str(restarts + 1)
    # Not `sys.argv`, in which the console script's name is not that of a file.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--set", "resume=true"])


def parse_config(
    recipes: Mapping[str, TrainConfig], argv: Sequence[str] | None = None
) -> tuple[TrainConfig, bool]:
    """Reads a `TrainConfig` from the command line.

    Args:
        recipes: `{name: TrainConfig}`, the choices of `--recipe`.
        argv: The arguments; `None` for the process's own.

    Returns:
        `(config, dry_run)`: the recipe, with the values of the flags replacing its own, and
        whether `--dry-run` was given. Fields without a flag are set by `--set
        field=value`, the value written as in JSON, as Python's `None`, or as plain text.

    Raises:
        SystemExit: With a message, if an argument is wrong.
    """
    parser = argparse.ArgumentParser(
        description="Trains a CrossViT. Options that are not given keep the recipe's values.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE.py",
        required=True,
        help=f"{', '.join(sorted(recipes))}, or a Python file that assigns RECIPE",
    )
    for name, options in _FLAGS.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    parser.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        help="start afresh; what is there moves to `before.N/`",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any other field of TrainConfig, e.g. best=val_accuracy patience=10",
    )
    parser.add_argument(
        "--dry-run", action="store_true", default=False, help="check everything, and train nothing"
    )
    arguments = vars(parser.parse_args(argv))
    recipe, settings = arguments.pop("recipe"), arguments.pop("set")
    only_check = arguments.pop("dry_run")
    try:
        if arguments.get("weights", "").lower() == "none":
            arguments["weights"] = None
        changes = {**arguments, **dict(_setting(text) for text in settings)}
        values = find_recipe(recipe, recipes)
        return dataclasses.replace(values, **_warmup(values, changes), **changes), only_check
    except ValueError as error:
        parser.error(str(error))


def _warmup(recipe, changes):
    """A warm-up that fits fewer epochs than the recipe's, unless one was given.

    It takes the recipe's share of all epochs, or if that is more a tenth of them, at most as many
    as the recipe.
    """
    epochs = changes.get("epochs", recipe.epochs)
    if "warmup_epochs" in changes or epochs not in range(1, recipe.epochs):
        return {}
    share = recipe.warmup_epochs * epochs / recipe.epochs
    return {"warmup_epochs": max(share, min(recipe.warmup_epochs, epochs / 10))}


def _setting(text):
    """`key=value` as `(key, value)`."""
    key, equals, value = text.partition("=")
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if not equals or key not in fields:
        hint = f". Did you mean '{key}=VALUE'?" if key in fields else did_you_mean(key, fields)
        raise ValueError(
            f"`--set` must be KEY=VALUE with a key of {', '.join(sorted(fields))}. "
            f"Received: {text!r}{hint}"
        )
    try:
        return key, json.loads(_PYTHONS_WORDS.get(value, value))
    except json.JSONDecodeError:
        return key, value
