"""The steps on JAX, on one device or under `keras.distribution.DataParallel`."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import keras
import numpy as np
import tensorflow as tf
from jax import numpy as jnp

from keras_crossvit.common.typing import Tensor
from keras_crossvit.training import state
from keras_crossvit.training.steps.base import COLUMNS, Step, row_sums

_UNDER_WAY = 2  # calls that may be started and unfinished: each holds its batches on the device


class JaxStep(Step):
    """See `Step`. The state is held in arrays, which each call consumes and returns anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model, optimizer = self.model, self.optimizer
        self._variables = self.trained, model.non_trainable_variables, optimizer.variables
        self.arrays = self._read_variables()
        teacher = self.loss.teacher
        # An argument of the step: were it a constant, XLA would compile for minutes.
        self._teacher_arrays = [] if teacher is None else [v.value for v in teacher.variables]
        self._train = jax.jit(self._steps, donate_argnums=0)
        self._evaluate = jax.jit(self._evaluation_step)
        self._under_way: collections.deque[Any] = collections.deque()

    def feed(self, batches: tf.data.Dataset) -> Iterator[Any]:
        return batches.as_numpy_iterator()

    def train(self, batches: Iterator[Any], count: int, stop: bool = False) -> Tensor:
        images, labels = zip(*(next(batches) for _ in range(count)), strict=True)
        while len(self._under_way) >= _UNDER_WAY:
            jax.block_until_ready(self._under_way.popleft())
        stops = np.full((count, jax.local_device_count()), stop, "float32")
        arrays = (self._on_devices(np.stack(x), 1) for x in (images, labels))
        stops = self._on_devices(stops, 1)
        self.arrays, sums = self._train(self.arrays, self._teacher_arrays, *arrays, stops)
        self._under_way.append(sums)
        return _local(sums)

    def evaluate(self, batches: Iterator[Any], stop: bool = False) -> Tensor:
        stops = np.full(jax.local_device_count(), stop, "float32")
        arrays = (self._on_devices(x, 0) for x in (*next(batches), stops))
        return _local(self._evaluate(self.arrays, *arrays))

    def sync(self) -> None:
        for variables, arrays in zip(self._variables, self.arrays, strict=True):
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(jnp.copy(array))  # since the next call of `train` donates it

    def snapshot(self) -> dict[str, Tensor]:
        values = {
            id(variable): array
            for variables, arrays in zip(self._variables, self.arrays, strict=True)
            for variable, array in zip(variables, arrays, strict=True)
        }
        named = state.variables(self.model, self.optimizer)
        # Copies, since the next call of `train` donates these.
        return {name: jnp.copy(_local(values[id(v)])) for name, v in named.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], origin: str) -> None:
        super().restore(arrays, origin)
        self.arrays = self._read_variables()

    def set_iterations(self, step: int) -> None:
        self.sync()
        super().set_iterations(step)
        self.arrays = self._read_variables()

    def _read_variables(self):
        # Copies, since a call of `train` donates the arrays that it is given.
        return tuple([jnp.copy(v.value) for v in group] for group in self._variables)

    def _on_devices(self, array, axis):
        """The process's part of a global batch, with rows along `axis`, on its devices."""
        if self.strategy is None:
            return jax.device_put(array)
        mesh = self.strategy.device_mesh.backend_mesh
        axes = [None] * axis + [self.strategy.batch_dim_name]
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        return jax.make_array_from_process_local_data(sharding, array)

    def _steps(self, arrays, teacher, images, labels, stops):
        return jax.lax.scan(
            lambda carry, x: self._step(carry, teacher, *x), arrays, (images, labels, stops)
        )

    def _step(self, arrays, teacher, images, labels, stops):
        trainable, fixed, optimizer = arrays
        parts = self.accumulation_steps
        images, labels = (_micro_batches(x, parts) for x in (images, labels))
        if parts == 1:
            gradients, fixed, sums = self._gradients(arrays, teacher, images[0], labels[0])
        else:

            def add_part(carry, batch):
                total, fixed, sums = carry
                now = trainable, fixed, optimizer
                new, fixed, rows = self._gradients(now, teacher, *batch)
                return (jax.tree.map(jnp.add, total, new), fixed, sums + rows), None

            start = jax.tree.map(jnp.zeros_like, trainable), fixed, jnp.zeros(COLUMNS - 1)
            (gradients, fixed, sums), _ = jax.lax.scan(add_part, start, (images, labels))
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        # A scan must return the types that it takes: Keras' formulas lose those of its variables.
        optimizer = jax.tree.map(lambda new, old: new.astype(old.dtype), optimizer, arrays[2])
        return (trainable, fixed, optimizer), jnp.append(sums, jnp.sum(stops))

    def _gradients(self, arrays, teacher, images, labels):
        """Gradients of the mean loss over all micro-batches, new seeds, the sums of these rows."""
        trainable, fixed, optimizer = arrays
        answers = None
        if self.loss.teacher is not None:
            mapping = zip(self.loss.teacher.variables, teacher, strict=True)
            with keras.StatelessScope(list(mapping)):
                answers = self.loss.teacher.logits(images)

        def loss(trainable):
            logits, new = self.model.stateless_call(trainable, fixed, images, training=True)
            losses = self.loss(labels, logits, answers)
            mapping = zip(self.optimizer.variables, optimizer, strict=True)
            with keras.StatelessScope(list(mapping)):
                scaled = self.optimizer.scale_loss(jnp.mean(losses) / self.accumulation_steps)
            return scaled, (new, row_sums(labels, logits, losses))

        gradients, (new, sums) = jax.grad(loss, has_aux=True)(trainable)
        return gradients, new, sums

    def _evaluation_step(self, arrays, images, labels, weights, stops):
        trainable, fixed, optimizer = arrays
        if self.average is not None:
            values = dict(zip(map(id, self.optimizer.variables), optimizer, strict=True))
            trainable = [values[id(variable)] for variable in self.averaged_variables()]
        logits, _ = self.model.stateless_call(trainable, fixed, images, training=False)
        return self.held_out_sums(labels, logits, weights, jnp.sum(stops))


def _micro_batches(x, parts):
    """`(B, ...)` as `(parts, B / parts, ...)`, with rows of every device in each part."""
    return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)


def _local(array):
    """The process's copy of an array that all of them hold."""
    return array.addressable_data(0)
