"""A recipe: the values of a run, by name or in a Python file of the user's."""

import hashlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Mapping

from keras_crossvit.common.checks import did_you_mean, expanded
from keras_crossvit.training.config import TrainConfig

_PREFIX = "keras_crossvit_recipe_"


def find_recipe(recipe: str, named: Mapping[str, TrainConfig]) -> TrainConfig:
    """The recipe with a name, or from a Python file.

    A file is run as a module, and finds other modules in its folder as a script does: it assigns
    a `TrainConfig` to `RECIPE`, and may register fusions, patch embeddings, presets,
    augmentations and sources of its own before that.

    Args:
        recipe: A name in `named`, or the path of a file that ends in `.py`.
        named: The recipes that have names.

    Raises:
        ValueError: If there is no such recipe; or, saying which file and why, if the file cannot
            be run, registers a name that is taken, or has no `RECIPE`.
    """
    if recipe in named:
        return named[recipe]
    path = expanded(recipe)
    if path.suffix != ".py":
        raise ValueError(
            f"`--recipe` must be one of {', '.join(named)}, or the path of a Python file. "
            f"Received: --recipe {recipe}{did_you_mean(recipe, named)}"
        )
    found = getattr(run_file(path), "RECIPE", None)
    if not isinstance(found, TrainConfig):
        raise ValueError(
            f"`--recipe` must be a file that assigns a TrainConfig to RECIPE. Received: {path} "
            f"with RECIPE = {found!r}"
        )
    return found


def loaded_files() -> list[str]:
    """The recipe files that this process has run."""
    return [
        str(module.__file__) for name, module in sys.modules.items() if name.startswith(_PREFIX)
    ]


def run_file(path: pathlib.Path) -> types.ModuleType:
    """The module of a recipe file, run once in a process.

    Raises:
        ValueError: If there is no such Python file, or it cannot be run; the message says why.
    """
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            "`--recipe` must name an existing file that ends in .py. "
            f"Received: --recipe {path}, which is not one"
        )
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
    name = f"{_PREFIX}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the path ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that dataclasses and saved classes find their module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # before all others while it runs, as for a script
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises
        del sys.modules[name]
        raise ValueError(
            f"`--recipe` must be a file that runs. Received: {path}, which ends in "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(folder)
    sys.path.append(folder)  # for what its functions import when they are called
    return module
