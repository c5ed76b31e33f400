"""The training step and the evaluation step, for each backend behind one interface."""

import keras

from keras_crossvit.training.steps.base import COLUMNS, Step, Totals
from keras_crossvit.training.steps.precision import mean_average_precision

__all__ = ["COLUMNS", "Step", "Totals", "mean_average_precision", "step_class"]


def step_class() -> type[Step]:
    """The `Step` of the current Keras backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_crossvit.training.steps.tensorflow import TensorFlowStep

        return TensorFlowStep
    if backend == "jax":
        from keras_crossvit.training.steps.jax import JaxStep

        return JaxStep
    raise ValueError(
        '`KERAS_BACKEND` must be "tensorflow" or "jax" to train by a recipe. '
        f"Received: KERAS_BACKEND={backend}"
    )
