"""SGD, with PyTorch's weight decay."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.common.variables import one_name_in_tensorflow
from keras_crossvit.optimizer.base import Optimizer

_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="keras_crossvit")
class SGD(Optimizer):
    """SGD with a momentum of 0.9 and PyTorch's weight decay, which is part of the gradient.

    As in Keras, the momentum holds steps, not gradients: when the learning rate changes, PyTorch's
    scales what is in it by the new rate, and this one does not.
    """

    @one_name_in_tensorflow()
    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        index = self.index_of(variable)
        momentum = self.momentums[index]
        gradient = ops.cast(gradient, variable.dtype)
        if self.decays[index]:
            gradient = gradient + self.kernel_decay * variable
        rate = ops.cast(learning_rate, variable.dtype) * self.scales[index]
        step = _MOMENTUM * momentum - gradient * rate
        self.assign(momentum, step)
        self.assign_add(variable, step)
