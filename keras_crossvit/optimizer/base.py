"""What all optimizers share."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.optimizer.rates import learning_rate_scales
from keras_crossvit.optimizer.replicas import sum_over_replicas, update_on_replicas


class Optimizer(keras.optimizers.Optimizer):
    """What AdamW and SGD share: decay, clipping of the global gradient, a moving average.

    Keras has arguments for all three. They are not used, since Keras does not save which
    variables decay, and clips the gradient of each replica instead of their sum.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decay of kernels.
        clip_norm: Maximum norm of all gradients together; `None` clips nothing.
        ema_momentum: Momentum of the moving average of the weights, which begins with those of
            the first step; `None` for no average.
        layer_decay: As in `make_optimizer`.
        name: Name of the optimizer.
    """

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float,
        clip_norm: float | None = None,
        ema_momentum: float | None = None,
        layer_decay: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name=name)
        self.kernel_decay = weight_decay
        self.clip_norm = clip_norm
        self.average_momentum = ema_momentum
        self.layer_decay = layer_decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        paths = [variable.path for variable in variables]
        self.decays = [
            variable.path.endswith("/kernel") and self._use_weight_decay(variable)
            for variable in variables
        ]
        self.scales = learning_rate_scales(paths, self.layer_decay)
        if self.average_momentum is not None:
            self.averages = [self._add_average(variable) for variable in variables]

    def _add_average(self, variable):
        """The variable's average, with at least 32 bits: in 16 a momentum of 0.999 is 1."""
        if getattr(variable, "overwrite_with_gradient", False):
            return None
        dtype = keras.backend.result_type(variable.dtype, "float32")
        name = f"{variable.path.replace('/', '_')}_average"
        layout = getattr(variable, "_layout", None)
        return self.add_variable(variable.shape, dtype=dtype, layout=layout, name=name)

    def apply(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        begun = ops.not_equal(self.iterations, 0)  # `super` counts this step, too
        clipped = self._clipped(grads, trainable_variables or self._trainable_variables)
        super().apply(clipped, trainable_variables)
        if self.average_momentum is not None and clipped:  # without any, `super` does nothing
            self._update_averages(begun)

    def _clipped(self, gradients, variables):
        """The gradients, scaled so that their sum over all replicas has a norm within bounds."""
        if self.clip_norm is None:
            return gradients
        # The "gradient" of a scale of float8 is its new value.
        clipped = {
            index: gradient
            for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=False))
            if gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
        }
        if not clipped:
            return gradients
        summed, replicas = sum_over_replicas(list(clipped.values()))
        norm = ops.sqrt(ops.sum(ops.stack([_sum_of_squares(x) for x in summed])))
        # What is not a number must stay that way, for the loss to show it.
        scale = self.clip_norm * ops.minimum(1.0 / norm, 1.0 / self.clip_norm) + (norm - norm)
        # Keras adds up the replicas' gradients, which are now all the same.
        scaled = [_times(gradient, scale / replicas) for gradient in summed]
        clipped = dict(zip(clipped, scaled, strict=True))
        return [clipped.get(index, gradient) for index, gradient in enumerate(gradients)]

    def _update_averages(self, begun):
        """Not part of `update_step`, which is not called for variables without a gradient."""
        pairs = zip(self.averages, self._trainable_variables, strict=True)
        pairs = [(average, variable) for average, variable in pairs if average is not None]
        if keras.backend.backend() == "tensorflow":
            update_on_replicas(self._update_average, pairs, begun)
            return
        for average, variable in pairs:
            self._update_average(average, variable, begun)

    def _update_average(self, average, variable, begun):
        momentum = ops.cast(begun, average.dtype) * self.average_momentum
        value = ops.cast(variable, average.dtype)
        self.assign(average, momentum * average + (1 - momentum) * value)

    def put_average_in_place(self, variables: Sequence[keras.Variable]) -> None:
        """Assigns their moving average to variables that the optimizer was built for.

        The scales of float8 have no average and stay as they are, and so does everything before
        the first step, with which the average begins.

        Raises:
            ValueError: If there is no average, or the optimizer was built for other variables;
                nothing is assigned.
        """
        if self.average_momentum is None:
            raise ValueError(
                "`ema_momentum` of the optimizer must be a number for it to have an average. "
                "Received: ema_momentum=None"
            )
        averages = [self._average_of(variable) for variable in variables]
        if not ops.convert_to_numpy(self.iterations):
            return  # the averages are still zeros
        for variable, average in zip(variables, averages, strict=True):
            if average is not None:
                variable.assign(ops.convert_to_numpy(average))

    def index_of(self, variable: keras.Variable) -> int:
        """Place of a variable among those that the optimizer was built for.

        Raises:
            KeyError: If it is none of them.
        """
        return self._get_variable_index(variable)

    def _average_of(self, variable):
        try:
            return self.averages[self.index_of(variable)]
        except KeyError:
            raise ValueError(
                "`variables` must be among those that the optimizer was built for. "
                f"Received also: {variable.path}"
            ) from None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            "learning_rate": config["learning_rate"],
            "weight_decay": self.kernel_decay,
            "clip_norm": self.clip_norm,
            "ema_momentum": self.average_momentum,
            "layer_decay": self.layer_decay,
            "name": self.name,
        }


def _times(gradient, factor):
    """In the factor's type: in float16 a small one is 0."""
    return ops.cast(ops.cast(gradient, factor.dtype) * factor, gradient.dtype)


def _sum_of_squares(gradient):
    """In at least float32: in float16 the square of 256 is infinite."""
    dtype = keras.backend.result_type(gradient.dtype, "float32")
    return ops.sum(ops.square(ops.cast(gradient, dtype)))
