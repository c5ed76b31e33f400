"""AdamW and SGD as ViTs are trained with them."""

import keras
import tensorflow as tf


def make_optimizer(
    model,
    learning_rate,
    weight_decay,
    total_steps,
    warmup_steps,
    optimizer="adamw",
    final_learning_rate=0.0,
    clip_norm=None,
    ema_momentum=None,
):
    """AdamW or SGD; linear warm-up, then cosine, per step (section 4.1).

    Kernels decay alone: class tokens, position embeddings, biases and norm parameters do
    not. (timm's rule; in the authors' run tokens and positions decayed, by a name that did
    not match.)

    Args:
        model: A built model.
        learning_rate: Highest learning rate.
        weight_decay: Decay of kernels. AdamW's is apart from the gradient, SGD's is added to
            it, as in PyTorch, whose values the paper gives.
        total_steps: Steps of the whole run.
        warmup_steps: Steps in which the learning rate rises from 0.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        final_learning_rate: Where the cosine ends.
        clip_norm: Highest norm of all gradients together; `None` clips nothing.
        ema_momentum: Momentum of the moving average of the weights; `None` for no average.

    Returns:
        An optimizer built for `model`; building it here saves `fit` a second trace.
    """
    arguments = {
        "learning_rate": learning_rate_schedule(
            learning_rate, final_learning_rate, total_steps, warmup_steps
        ),
        "weight_decay": weight_decay,
        "global_clipnorm": clip_norm,
        "use_ema": ema_momentum is not None,
        "ema_momentum": 0.99 if ema_momentum is None else ema_momentum,
    }
    optimizer = AdamW(**arguments) if optimizer == "adamw" else SGD(momentum=0.9, **arguments)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not v.path.endswith("/kernel")]
    )
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def learning_rate_schedule(highest, final, total_steps, warmup_steps):
    """Linear warm-up from 0 to `highest`, then a cosine to `final`, by the number of the step."""
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


class _Distributed:
    """What Keras' optimizers lack where replicas train together."""

    def _clip_gradients(self, grads):
        """Clips the gradient of the global batch; Keras clips each replica's part of it."""
        replicas = self._distribution_strategy.num_replicas_in_sync
        if replicas == 1 or self.global_clipnorm is None:
            return super()._clip_gradients(grads)
        grads = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, grads)
        # Keras adds the replicas' gradients up afterwards, which are now all the same.
        return [gradient / replicas for gradient in super()._clip_gradients(grads)]

    def finalize_variable_values(self, var_list):
        """Keeps the weights as they are: `fit` may end before the training does."""

    def put_average_in_place(self, variables):
        """Assigns their moving average to the variables: what Keras does at the end of `fit`."""
        super().finalize_variable_values(variables)


class AdamW(_Distributed, keras.optimizers.AdamW):
    """AdamW with one operation for each variable, where Keras' has twenty.

    The mathematics is Keras'. A graph of a tenth of the operations is traced in less time,
    and TensorFlow's kernel updates weights and moments in place.
    """

    def _apply_weight_decay(self, variables):
        """Part of `update_step`."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        step = tf.cast(self.iterations + 1, tf.float32)
        beta_1, beta_2 = tf.constant(self.beta_1), tf.constant(self.beta_2)
        rates = {  # made once: as numbers they would be nodes of the graph for each variable
            "lr": learning_rate,
            "beta1": beta_1,
            "beta2": beta_2,
            "beta1_power": tf.pow(beta_1, step),
            "beta2_power": tf.pow(beta_2, step),
            "epsilon": tf.constant(self.epsilon),
        }
        decay = learning_rate * self.weight_decay
        super()._backend_update_step(grads, trainable_variables, (rates, decay))

    def update_step(self, gradient, variable, learning_rate):
        rates, decay = learning_rate
        index = self._get_variable_index(variable)
        if self._use_weight_decay(variable):
            # Not before the gradient: what is taken off would wait in memory for all the step.
            with tf.control_dependencies([gradient]):
                variable.assign_sub(variable * decay)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=tf.cast(gradient, variable.dtype),
            **rates,
        )


class SGD(_Distributed, keras.optimizers.SGD):
    """SGD with PyTorch's weight decay: a part of the gradient, so that momentum sees it."""

    def _apply_weight_decay(self, variables):
        pass

    def update_step(self, gradient, variable, learning_rate):
        if self._use_weight_decay(variable):
            gradient = gradient + self.weight_decay * tf.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)
