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
    arrays = _with_scale_as_in(optimizer, arrays)
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


def _with_scale_as_in(optimizer, arrays):
    """The arrays by the names of this optimizer, if only one of run and checkpoint is in float16.

    A `LossScaleOptimizer` has variables of its own, before those of the optimizer in it.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    own = [] if inner is None else optimizer.variables[: -len(inner.variables)]
    there = [name for name in arrays if name.endswith((" step_counter", " dynamic_scale"))]
    if bool(own) == bool(there):
        return arrays
    # Both count steps, so that the inner optimizer's are the last of that name.
    moved = len(own) or -max(int(x.split()[1]) for x in arrays if x.endswith(" iteration"))
    found = {name: array for name, array in arrays.items() if name.startswith("model ")}
    for name in arrays.keys() - found.keys():
        group, number, tail = name.split(" ", 2)
        if int(number) + moved >= 0:
            found[f"{group} {int(number) + moved:04d} {tail}"] = arrays[name]
    for number, variable in enumerate(own):
        name = variable.path.rpartition("/")[2]
        value = arrays["optimizer 0000 iteration"] if name == "iteration" else variable
        found[f"optimizer {number:04d} {name}"] = keras.ops.convert_to_numpy(value)
    return found
