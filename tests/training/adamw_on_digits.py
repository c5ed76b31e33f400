"""Follows the 100 steps of `tests/data/pytorch_adamw.py`, on any backend."""

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_crossvit.training import make_optimizer
from tests.data.pytorch_adamw import FIGURES, LEARNING_RATE, STEPS, WEIGHT_DECAY, batch

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]


def two_layers(figures):
    """The same network, with the weights that it starts from."""
    inputs = keras.Input((64,))
    x = keras.layers.Dense(32, name="hidden")(inputs)
    x = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    x = keras.layers.Activation(lambda x: keras.activations.gelu(x, approximate=False))(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(x))
    for variable, name in zip(model.weights, NAMES, strict=True):
        variable.assign(figures[f"start {name}"].T)
    return model


def follow(optimizer=None):
    """`(losses, PyTorch's losses)` of the 100 steps; with `make_optimizer`'s AdamW by default."""
    with np.load(FIGURES) as figures:
        model, theirs = two_layers(figures), figures["losses"]
    # The final rate is the highest, so the rate is the same in all steps.
    rates = {"learning_rate": LEARNING_RATE, "final_learning_rate": LEARNING_RATE}
    model.compile(
        optimizer
        or make_optimizer(
            model, weight_decay=WEIGHT_DECAY, total_steps=STEPS, warmup_steps=0, **rates
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    digits = load_digits()
    losses = []
    for step in range(STEPS):
        model.reset_metrics()  # otherwise Keras reports the mean of all steps so far
        losses.append(float(model.train_on_batch(*batch(digits, step))))
    return np.array(losses), theirs
