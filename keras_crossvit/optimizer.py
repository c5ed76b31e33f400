"""AdamW and SGD as used to train vision transformers, on every backend."""

import re
import types
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import (
    check_between,
    check_choice,
    check_not_negative,
    check_positive,
    check_rate,
)
from keras_crossvit.common.typing import Tensor

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # PyTorch's, and so the paper's
_MOMENTUM = 0.9
# Where a variable lies, by the first part of its path, or a later one inside a model that holds
# this one; anything else is a head.
_EMBEDDING = re.compile("(^|/)(small|large)_(patch_embed|class_token|position_embedding)/")
_STAGE = re.compile(r"(?:^|/)(?:stage|large_block)_(\d+)/")
_NORM = re.compile("(^|/)(small|large)_norm/")


def make_optimizer(
    model: keras.Model,
    learning_rate: float,
    weight_decay: float,
    total_steps: int,
    warmup_steps: int,
    optimizer: str = "adamw",
    final_learning_rate: float = 0.0,
    clip_norm: float | None = None,
    ema_momentum: float | None = None,
    layer_decay: float | None = None,
) -> keras.optimizers.Optimizer:
    """AdamW or SGD; linear warm-up, then cosine, per step (section 4.1).

    Only kernels decay: class tokens, position embeddings, biases and norm parameters do not.
    (timm's rule; in the authors' run tokens and positions decayed, because of a name that did
    not match.)

    Args:
        model: A built model.
        learning_rate: Highest learning rate.
        weight_decay: Decay of kernels. AdamW's is decoupled from the gradient, SGD's is added to
            it, as in PyTorch, whose values the paper gives.
        total_steps: Steps of the whole run.
        warmup_steps: Steps over which the learning rate rises from 0.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        final_learning_rate: Where the cosine ends.
        clip_norm: Maximum norm of all gradients together, over the global batch; `None` clips
            nothing.
        ema_momentum: Momentum of the moving average of the weights; `None` for no average. A run
            evaluates and keeps the average; after `model.fit`, put it in place of the weights by
            the optimizer's `put_average_in_place(model.trainable_variables)`.
        layer_decay: Factor of the learning rate, and with it of the decay, from each stage to the
            one before, in (0, 1], with the groups of timm's `--layer-decay`. `None` for 1.

    Returns:
        An optimizer built for `model`, in a `LossScaleOptimizer` under `mixed_float16`. It can be
        given to `model.compile`, and is saved and loaded with the model.

    Raises:
        ValueError: If a value is outside its range.
    """
    check_values(
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        final_learning_rate=final_learning_rate,
        clip_norm=clip_norm,
        ema_momentum=ema_momentum,
        layer_decay=layer_decay,
    )
    kind = AdamW if optimizer == "adamw" else SGD
    made = kind(
        learning_rate_schedule(learning_rate, final_learning_rate, total_steps, warmup_steps),
        weight_decay,
        clip_norm=clip_norm,
        ema_momentum=ema_momentum,
        layer_decay=layer_decay,
    )
    if keras.config.dtype_policy().name == "mixed_float16":
        made = keras.optimizers.LossScaleOptimizer(made)
    made.build(model.trainable_variables)
    return made


def check_values(
    optimizer: str,
    learning_rate: float,
    weight_decay: float,
    final_learning_rate: float,
    clip_norm: float | None,
    ema_momentum: float | None,
    layer_decay: float | None,
) -> None:
    """Raises `ValueError` if an argument of `make_optimizer` is outside its range."""
    check_choice("optimizer", optimizer, {"adamw", "sgd"})
    check_positive("learning_rate", learning_rate)
    check_not_negative("weight_decay", weight_decay)
    check_not_negative("final_learning_rate", final_learning_rate)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    if ema_momentum is not None:
        check_rate("ema_momentum", ema_momentum)
    if layer_decay is not None:
        check_between("layer_decay", check_positive("layer_decay", layer_decay), 0, 1)


def learning_rate_schedule(
    highest: float, final: float, total_steps: int, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up from 0 to `highest`, then a cosine to `final`, by step number."""
    decay_steps = max(1, total_steps - warmup_steps)
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(highest, decay_steps, final / highest)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps,
        alpha=final / highest,
        warmup_target=highest,
        warmup_steps=warmup_steps,
    )


def learning_rate_scales(paths: Sequence[str], layer_decay: float | None) -> list[float]:
    """Factor of each variable's learning rate: timm's `--layer-decay`.

    1 for the heads, and a power of `layer_decay` below: the first for the last stage and the norms
    after it, the second for the one before, and so on down to the embeddings.

    Args:
        paths: The variables' paths.
        layer_decay: The factor from a stage to the one before, in (0, 1]; `None` for 1.
    """
    stages = [_STAGE.search(path) for path in paths]
    last = max((int(found[1]) for found in stages if found), default=0)
    scales = []
    for path, stage in zip(paths, stages, strict=True):
        below = 0
        if stage:
            below = last - int(stage[1]) + 1
        elif _EMBEDDING.search(path):
            below = last + 2
        elif _NORM.search(path):
            below = 1
        scales.append((layer_decay or 1.0) ** below)
    return scales


class _Optimizer(keras.optimizers.Optimizer):
    """What both share: decay of kernels, clipping of the global gradient, a moving average.

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
        norm = ops.sqrt(ops.sum(ops.stack([ops.sum(ops.square(x)) for x in summed])))
        # What is not a number must stay that way, for the loss to show it.
        scale = self.clip_norm * ops.minimum(1.0 / norm, 1.0 / self.clip_norm) + (norm - norm)
        # Keras adds up the replicas' gradients, which are now all the same.
        scaled = [gradient * (scale / replicas) for gradient in summed]
        clipped = dict(zip(clipped, scaled, strict=True))
        return [clipped.get(index, gradient) for index, gradient in enumerate(gradients)]

    def _update_averages(self, begun):
        """Not part of `update_step`, which is not called for variables without a gradient."""
        pairs = zip(self.averages, self._trainable_variables, strict=True)
        pairs = [(average, variable) for average, variable in pairs if average is not None]
        if keras.backend.backend() == "tensorflow":
            _update_on_replicas(self._update_average, pairs, begun)
            return
        for average, variable in pairs:
            self._update_average(average, variable, begun)

    def _update_average(self, average, variable, begun):
        momentum = ops.cast(begun, average.dtype) * self.average_momentum
        value = ops.cast(variable, average.dtype)
        self.assign(average, momentum * average + (1 - momentum) * value)

    def put_average_in_place(self, variables: Sequence[keras.Variable]) -> None:
        """Assigns their moving average to variables that the optimizer was built for.

        The scales of float8 have no average and stay as they are.

        Raises:
            ValueError: If the optimizer was built for other variables; nothing is assigned.
        """
        averages = [self._average_of(variable) for variable in variables]
        for variable, average in zip(variables, averages, strict=True):
            if average is not None:
                variable.assign(ops.convert_to_numpy(average))

    def _average_of(self, variable):
        try:
            return self.averages[self._get_variable_index(variable)]
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


@keras.saving.register_keras_serializable(package="keras_crossvit")
class AdamW(_Optimizer):
    """PyTorch's AdamW: epsilon is 1e-8 and is added to the corrected second moment's root.

    (Keras and TensorFlow add it to the uncorrected one, which at first makes it effectively 30
    times as large.) On TensorFlow each variable is updated in place by one operation, where the
    formula takes twenty: less to trace, and less memory.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In a namespace, as Keras and TensorFlow track what is assigned to the optimizer itself.
        self.step = types.SimpleNamespace(rates=None)

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
        index = self._get_variable_index(variable)
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


@keras.saving.register_keras_serializable(package="keras_crossvit")
class SGD(_Optimizer):
    """SGD with a momentum of 0.9 and PyTorch's weight decay, which is part of the gradient.

    As in Keras, the momentum holds steps, not gradients: when the learning rate changes, PyTorch's
    scales what is in it by the new rate, and this one does not.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        momentum = self.momentums[index]
        gradient = ops.cast(gradient, variable.dtype)
        if self.decays[index]:
            gradient = gradient + self.kernel_decay * variable
        rate = ops.cast(learning_rate, variable.dtype) * self.scales[index]
        step = _MOMENTUM * momentum - gradient * rate
        self.assign(momentum, step)
        self.assign_add(variable, step)


def sum_over_replicas(gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], int]:
    """The gradients, added up over the replicas of tf.distribute, and the number of replicas.

    On JAX a gradient is already that of the global batch, as with one replica.
    """
    if keras.backend.backend() != "tensorflow":
        return gradients, 1
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return gradients, 1
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients)), replicas


def _update_on_replicas(update_average, pairs, begun):
    import tensorflow as tf

    def update(strategy, begun):
        for average, variable in pairs:
            given = variable.value, begun
            strategy.extended.update(average.value, update_average, args=given, group=False)

    # As Keras updates variables: some strategies take no update within a replica.
    merge = tf.__internal__.distribute.interim.maybe_merge_call
    merge(update, tf.distribute.get_strategy(), begun)


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
