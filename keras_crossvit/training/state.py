"""Everything that determines how a run goes on: weights, optimizer, averages, random seeds."""

from collections.abc import Mapping

import keras
import numpy as np


def restore(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    arrays: Mapping[str, np.ndarray],
    origin: str,
) -> None:
    """Assigns what a checkpoint holds, all or nothing.

    Args:
        model: The model.
        optimizer: Its optimizer, built.
        arrays: `{name: array}`, as `variables` names them, from a run on any backend.
        origin: Where they were read from, for the message.

    Raises:
        ValueError: If the variables do not match.
    """
    known = variables(model, optimizer)
    wrong = sorted(known.keys() ^ arrays.keys()) or [
        f"{name} {arrays[name].shape} for {tuple(variable.shape)}"
        for name, variable in known.items()
        if arrays[name].shape != tuple(variable.shape)
    ]
    if wrong:
        raise ValueError(
            "A checkpoint must be of the same model and optimizer as the run that goes on from "
            f"it. Received: {origin}, where {len(wrong)} variables differ: {', '.join(wrong[:6])}"
        )
    for name, variable in known.items():
        variable.assign(arrays[name].astype(keras.backend.standardize_dtype(variable.dtype)))


def variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> dict[str, keras.Variable]:
    """All variables of a model and its optimizer, by the names that checkpoints give them."""
    # Numbered, since the last part of a path is not unique, and the first parts may contain
    # counters of the process ("adam_w_1").
    return {
        f"{group} {number:04d} {variable.path.rpartition('/')[2]}": variable
        for group, variables in (("model", model.variables), ("optimizer", optimizer.variables))
        for number, variable in enumerate(variables)
    }
