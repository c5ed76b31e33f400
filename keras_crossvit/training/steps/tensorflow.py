"""The steps on TensorFlow, under any tf.distribute strategy."""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_crossvit.common.tf_data import graph_function
from keras_crossvit.common.typing import Tensor
from keras_crossvit.optimizer import sum_over_replicas
from keras_crossvit.training import state
from keras_crossvit.training.steps.base import COLUMNS, Step, row_sums


class TensorFlowStep(Step):
    """See `Step`. A replica's whole step can be compiled by XLA: all of its shapes are static."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replicas = self.strategy.num_replicas_in_sync
        if self.jit_compile and self.replicas > 1:
            raise ValueError(
                "`jit_compile` must be false where several replicas train together, whose "
                "gradients XLA cannot add up on TensorFlow; KERAS_BACKEND=jax compiles on any "
                f"number of devices. Received: jit_compile=True with {self.replicas} replicas"
            )
        self.replica_step = self._replica_step
        if self.jit_compile:
            self.replica_step = graph_function(self._replica_step, jit_compile=True)
        self._train = graph_function(self._one_step if self.steps_per_call == 1 else self._steps)
        self._evaluate = graph_function(self._evaluation_step)

    def feed(self, batches: tf.data.Dataset) -> Iterator[Any]:
        if self.replicas == 1:
            return iter(batches)
        return iter(self.strategy.distribute_datasets_from_function(lambda _: batches))

    def train(self, batches: Iterator[Any], count: int, stop: bool = False) -> Tensor:
        return self._train(batches, tf.constant(count), tf.constant(float(stop)))

    def evaluate(self, batches: Iterator[Any], stop: bool = False) -> Tensor:
        return self._evaluate(batches, tf.constant(float(stop)))

    def snapshot(self) -> dict[str, Tensor]:
        # No copies: TensorFlow makes one when it changes a variable that is read elsewhere.
        named = state.variables(self.model, self.optimizer)
        return {name: variable.value.read_value() for name, variable in named.items()}

    def sync(self) -> None:
        """Nothing to do: the steps work on the variables themselves."""

    def _one_step(self, batches, count, stop):
        return self._on_replicas(self.replica_step, *next(batches), stop)[tf.newaxis]

    def _steps(self, batches, count, stop):
        def add_step(number, rows):
            sums = self._on_replicas(self.replica_step, *next(batches), stop)
            return number + 1, rows.write(number, sums)

        rows = tf.TensorArray(tf.float32, count, element_shape=(COLUMNS,))
        _, rows = tf.while_loop(lambda number, _: number < count, add_step, (tf.constant(0), rows))
        return rows.stack()

    def _evaluation_step(self, batches, stop):
        return self._on_replicas(self._replica_evaluation, *next(batches), stop)

    def _on_replicas(self, function, *arguments):
        """What `function` returns, which is the same on all replicas."""
        return self.strategy.experimental_local_results(self.strategy.run(function, arguments))[0]

    def _replica_step(self, images, labels, stop):
        if self.accumulation_steps == 1:
            gradients, sums = self._gradients(images, labels)
        else:
            gradients, sums = self._accumulated(images, labels)
        if self.replicas > 1 and hasattr(self.optimizer, "inner_optimizer"):
            # The loss scale must find the same gradients finite everywhere. Keras adds them up
            # once more, now that they are equal.
            summed, replicas = sum_over_replicas(gradients)
            gradients = [x if x is None else x / replicas for x in summed]
        self.optimizer.apply(gradients, self.trained)
        # Every replica of a process wants to end as the process does.
        return self._summed(tf.concat([sums, [stop]], 0))

    def _replica_evaluation(self, images, labels, weights, stop):
        averages = zip(self.trained, self.averaged_variables(), strict=True)
        with keras.StatelessScope([(variable, mean.value) for variable, mean in averages]):
            logits = self.model(images, training=False)
        return self._summed(self.held_out_sums(labels, logits, weights, stop))

    def _summed(self, sums):
        (total,), _ = sum_over_replicas([sums])
        return total

    def _gradients(self, images, labels, parts=1):
        """Gradients of the mean loss over `parts` global batches, and the sums of these rows."""
        teacher = self.loss.teacher and self.loss.teacher.logits(images)
        with tf.GradientTape() as tape:
            logits = self._forward(images)
            losses = self.loss(labels, logits, teacher)
            loss = tf.reduce_mean(losses) / (parts * self.replicas)
            scaled = self.optimizer.scale_loss(loss)
        variables = [variable.value for variable in self.trained]
        return tape.gradient(scaled, variables), row_sums(labels, logits, losses)

    def _accumulated(self, images, labels):
        """The same for all micro-batches together, computed one after another."""
        parts = self.accumulation_steps
        images, labels = (
            tf.reshape(x, (parts, x.shape[0] // parts, *x.shape[1:])) for x in (images, labels)
        )

        unused = set()  # places of weights that have no gradient, as in a fusion of one's own

        def add_part(part, gradients, sums):
            new, rows = self._gradients(images[part], labels[part], parts)
            unused.update(place for place, gradient in enumerate(new) if gradient is None)
            pairs = zip(gradients, new, strict=True)
            gradients = [old if gradient is None else old + gradient for old, gradient in pairs]
            return part + 1, gradients, sums + rows

        zeros = [tf.zeros(v.shape, v.dtype) for v in self.trained]
        start = tf.constant(0), zeros, tf.zeros(COLUMNS - 1)
        # Not side by side, which takes nearly as much memory as the whole batch.
        _, gradients, sums = tf.while_loop(
            lambda part, *_: part < parts, add_part, start, parallel_iterations=1
        )
        return [None if n in unused else x for n, x in enumerate(gradients)], sums

    def _forward(self, images):
        if self.replicas == 1:
            return self.model(images, training=True)
        # The replicas share the state of the seeds, but each draws from seeds of its own.
        model = self.model
        weights = {id(variable) for variable in model.non_trainable_weights}
        seeds = [v for v in model.non_trainable_variables if id(v) not in weights]
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = {s.path: tf.cast(tf.stack([replica, 0]), s.dtype) for s in seeds}
        with keras.StatelessScope([(s, s.value + own[s.path]) for s in seeds]) as scope:
            logits = model(images, training=True)
        for seed in seeds:
            seed.assign(scope.get_current_value(seed) - own[seed.path])
        return logits
