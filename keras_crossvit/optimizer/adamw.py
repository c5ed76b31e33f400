"""AdamW, with PyTorch's epsilon."""

import types
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.common.variables import one_name_in_tensorflow
from keras_crossvit.optimizer.base import Optimizer

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # PyTorch's, and so the paper's


@keras.saving.register_keras_serializable(package="keras_crossvit")
class AdamW(Optimizer):
    """PyTorch's AdamW: epsilon is 1e-8 and is added to the corrected second moment's root.

    (Keras and TensorFlow add it to the uncorrected one, which at first makes it effectively 30
    times as large.) On TensorFlow each variable is updated in place by one operation, where the
    formula takes twenty: less to trace, and less memory.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In a namespace, as Keras and TensorFlow track what is assigned to the optimizer itself.
        self.step = types.SimpleNamespace(rates=None)

    @one_name_in_tensorflow()
    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums, self.velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def apply(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        # Computed once a step: in `update_step` they would be repeated for each variable.
        step = ops.cast(self.iterations + 1, "float32")
        power_1, power_2 = ops.power(_BETA_1, step), ops.power(_BETA_2, step)
        learning_rate = ops.cast(self.learning_rate, "float32")
        epsilon = _EPSILON * ops.sqrt(1 - power_2)
        decay = learning_rate * self.kernel_decay
        self.step.rates = power_1, power_2, learning_rate, epsilon, decay
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        index = self.index_of(variable)
        momentum, velocity = self.momentums[index], self.velocities[index]
        *rates, learning_rate, epsilon, decay = self.step.rates
        if self.scales[index] != 1:
            learning_rate, decay = (rate * self.scales[index] for rate in (learning_rate, decay))
        # With 16 bits the state is rounded, but not what is computed from it.
        dtype = keras.backend.result_type(variable.dtype, "float32")
        gradient = ops.cast(gradient, dtype)
        if keras.backend.backend() == "tensorflow" and variable.dtype == "float32":
            if self.decays[index]:
                _decay_in_place(variable, gradient, decay)
            rates = [*rates, learning_rate, epsilon]
            _update_in_place(variable, momentum, velocity, gradient, rates)
        else:
            given = [*rates, learning_rate, epsilon, decay]
            power_1, power_2, learning_rate, epsilon, decay = (ops.cast(x, dtype) for x in given)
            value, first, second = (ops.cast(x, dtype) for x in (variable, momentum, velocity))
            if self.decays[index]:
                value = value - value * decay
            first = first + (gradient - first) * (1 - _BETA_1)
            second = second + (ops.square(gradient) - second) * (1 - _BETA_2)
            rate = learning_rate * ops.sqrt(1 - power_2) / (1 - power_1)
            value = value - first * rate / (ops.sqrt(second) + epsilon)
            for stored, new in ((momentum, first), (velocity, second), (variable, value)):
                stored.assign(ops.cast(new, stored.dtype))


def _decay_in_place(variable, gradient, decay):
    import tensorflow as tf

    # Not before the gradient: what is subtracted would wait in memory for the whole step.
    with tf.control_dependencies([gradient]):
        variable.assign_sub(variable * decay)


def _update_in_place(variable, momentum, velocity, gradient, rates):
    import tensorflow as tf

    power_1, power_2, learning_rate, epsilon = rates
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.value.handle,
        v=velocity.value.handle,
        grad=gradient,
        lr=learning_rate,
        beta1=tf.constant(_BETA_1),
        beta2=tf.constant(_BETA_2),
        beta1_power=power_1,
        beta2_power=power_2,
        epsilon=epsilon,
    )
