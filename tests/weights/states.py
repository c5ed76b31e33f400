"""What the tests of checkpoints share."""

import keras
import numpy as np
from safetensors.numpy import save_file


def zeroed(model):
    """`model` with all weights 0, so that what is loaded shows."""
    for variable in model.weights:
        variable.assign(keras.ops.zeros_like(variable))
    return model


def assert_same_weights(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def written(state, tmp_path, name="weights.safetensors"):
    save_file(state, tmp_path / name)
    return tmp_path / name
