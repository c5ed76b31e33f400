"""Everything that decides how a run goes on: weights, optimizer, averages, random seeds."""

import keras
import numpy as np


def capture_state(trainee):
    """Copies of the values of all variables of a compiled `Trainee`, `{name: array}`."""
    return {name: values_of(variable) for name, variable in _variables(trainee).items()}


def restore_state(trainee, arrays, origin):
    """Assigns what `capture_state` copied, all or nothing.

    Args:
        trainee: A compiled `Trainee`.
        arrays: What was copied.
        origin: Where it was read from, for the message.

    Raises:
        ValueError: If the variables are others.
    """
    variables = _variables(trainee)
    wrong = sorted(variables.keys() ^ arrays.keys()) or [
        f"{name} {arrays[name].shape} for {tuple(variable.shape)}"
        for name, variable in variables.items()
        if arrays[name].shape != tuple(variable.shape)
    ]
    if wrong:
        raise ValueError(
            "A checkpoint must be of the same model and optimizer as the run that goes on from "
            f"it. Received: {origin}, where {len(wrong)} variables differ: {', '.join(wrong[:6])}"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def values_of(variable):
    """A copy of a variable's value as an array."""
    return np.array(keras.ops.convert_to_numpy(variable))


def _variables(trainee):
    groups = {"model": trainee.variables, "optimizer": _optimizer_variables(trainee.optimizer)}
    # Numbered, since the last part of a path is not its own, and the first parts may hold
    # counters of the process ("adam_w_1").
    return {
        f"{group} {number:04d} {variable.path.rpartition('/')[2]}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }


def _optimizer_variables(optimizer):
    inner = getattr(optimizer, "inner_optimizer", None)
    return [*optimizer.variables, *(inner.variables if inner is not None else [])]


class WeightAverage(keras.callbacks.Callback):
    """Puts the moving average of the weights in their place while a model is tested.

    Keras' `SwapEMAWeights` swaps by adding and subtracting, which rounds: the weights that
    come back are not those that went.
    """

    def __init__(self):
        super().__init__()
        self._kept = None

    def on_test_begin(self, logs=None):
        self._kept = [values_of(variable) for variable in self.model.trainable_variables]
        self.take_place()

    def take_place(self):
        """Puts the average in the weights' place for good."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        optimizer.put_average_in_place(self.model.trainable_variables)

    def on_test_end(self, logs=None):
        if self._kept is not None:
            self._assign(self._kept)
            self._kept = None

    def _assign(self, values):
        for variable, value in zip(self.model.trainable_variables, values, strict=True):
            variable.assign(value)
