"""What a step is, whatever computes it, and what it reports about the rows that it saw."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.training import state
from keras_crossvit.training.steps.losses import RowLoss
from keras_crossvit.training.steps.precision import score_counts, softmax_scores

COLUMNS = 5  # of what a step returns: loss, top-1, top-5, rows, devices whose process wants to end


class Step(abc.ABC):
    """A model, its optimizer, and the devices of this process that train it.

    The loss is averaged over the global batch. What is computed is the same on any number of
    devices and processes, except for the order of sums and the images that drop path falls on: on
    TensorFlow each replica draws for itself, and several JAX processes hold the rows of a batch
    in another order.

    Args:
        model: A functional classifier that returns logits.
        optimizer: One from `make_optimizer`, built for `model`.
        strategy: What `make_strategy` returned; the model was made in its scope.
        accumulation_steps: Micro-batches that each replica's batch is split into, computed one
            after another before the single update.
        steps_per_call: Maximum number of steps in one call of `train`.
        jit_compile: Whether XLA compiles TensorFlow's step; JAX always compiles.
        loss: The loss of a row in training; in evaluation only its `kind` counts.
        several_labels: Whether an image may have several labels.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        strategy: Any,
        accumulation_steps: int = 1,
        steps_per_call: int = 1,
        jit_compile: bool = False,
        loss: RowLoss | None = None,
        several_labels: bool = False,
    ) -> None:
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        self.trained = model.trainable_variables  # for good, whatever a hook freezes
        self.accumulation_steps = accumulation_steps
        self.steps_per_call = steps_per_call
        self.jit_compile = jit_compile
        self.loss = loss or RowLoss()
        self.held_out_loss = RowLoss(self.loss.kind)
        self.several_labels = several_labels
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        self.average = inner if inner.average_momentum is not None else None

    @abc.abstractmethod
    def feed(self, batches: tf.data.Dataset) -> Iterator[Any]:
        """An iterator over the batches of this worker's shard, for `train` or `evaluate`."""

    @abc.abstractmethod
    def train(self, batches: Iterator[Any], count: int, stop: bool = False) -> Tensor:
        """Runs `count` steps, at most `steps_per_call`.

        Args:
            batches: What `feed` returned for `training_batches`.
            count: Number of steps.
            stop: Whether this process wants to end; all processes see how many do.

        Returns:
            `(count, 5)`, on the device, as soon as the steps are started: for each step the sum
            of the loss over the rows of the global batch that have a label, the number of rows
            whose label comes first, of those whose label is among the first five, and of all of
            them; and how many processes want to end.
        """

    @abc.abstractmethod
    def evaluate(self, batches: Iterator[Any], stop: bool = False) -> Tensor:
        """Evaluates the next batch, with the moving average of the weights if there is one.

        Args:
            batches: What `feed` returned for `evaluation_batches`.
            stop: As in `train`.

        Returns:
            `(5,)`: sums as in a step of `train`, each row times its weight. With several labels
            the batch's `score_counts` follow, flattened; of a softmax, of its `softmax_scores`.
        """

    @abc.abstractmethod
    def snapshot(self) -> dict[str, Tensor]:
        """All state that determines how training goes on, `{name: tensor}`, as it is now.

        Later steps leave the tensors as they are, so that another thread can read them.
        """

    def restore(self, arrays: Mapping[str, np.ndarray], origin: str) -> None:
        """Assigns the arrays of a `snapshot`, all or nothing.

        Raises:
            ValueError: If the variables do not match; the message names `origin`.
        """
        state.restore(self.model, self.optimizer, arrays, origin)

    def set_iterations(self, step: int) -> None:
        """Sets the step that the learning rate's schedule has reached."""
        self.optimizer.iterations.assign(step)
        if hasattr(self.optimizer, "inner_optimizer"):  # which has the schedule
            self.optimizer.inner_optimizer.iterations.assign(step)

    def put_average_in_place(self) -> None:
        """Gives the model the moving average of its weights, if there is one."""
        self.sync()
        if self.average is not None:
            self.average.put_average_in_place(self.trained)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the model has the moving average of its weights, if there is one.

        Its own come back at the end, unless the context changes any: then all stay as it leaves
        them.
        """
        self.sync()
        if self.average is None:
            yield
            return
        before = [np.array(ops.convert_to_numpy(v)) for v in self.trained]
        self.put_average_in_place()
        average = [np.array(ops.convert_to_numpy(v)) for v in self.trained]
        try:
            yield
        finally:
            if all(map(np.array_equal, average, map(ops.convert_to_numpy, self.trained))):
                for variable, value in zip(self.trained, before, strict=True):
                    variable.assign(value)

    def check_trained(self) -> None:
        """Raises `ValueError` if a hook has frozen layers, or made frozen ones trainable."""
        now = self.model.trainable_variables
        if list(map(id, now)) != list(map(id, self.trained)):
            raise ValueError(
                "`on_epoch` must neither freeze nor unfreeze layers, as what is trained cannot "
                f"change within a run. Received: {len(now)} trainable variables, before it "
                f"{len(self.trained)}"
            )

    @abc.abstractmethod
    def sync(self) -> None:
        """Writes the state to the variables of the model and the optimizer."""

    def held_out_sums(
        self, labels: Tensor, logits: Tensor, weights: Tensor, stops: Tensor
    ) -> Tensor:
        """What `evaluate` returns, for some rows and the processes that want to end."""
        losses = self.held_out_loss(labels, logits)
        sums = [row_sums(labels, logits, losses, weights), ops.reshape(stops, (1,))]
        if self.several_labels:
            scores = softmax_scores(logits) if self.loss.kind == "softmax" else logits
            sums.append(ops.ravel(score_counts(labels, scores, weights)))
        return ops.concatenate(sums)

    def averaged_variables(self) -> Sequence[keras.Variable]:
        """The variables to evaluate with, in the order of the trainable ones."""
        if self.average is None:
            return self.trained
        return self.average.averages


def row_sums(
    labels: Tensor, logits: Tensor, losses: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Loss, top-1 and top-5, summed over the rows, and their number: float32 `(4,)`.

    Args:
        labels: `(B, classes)`; mixed labels count as the class with the highest value, and where
            several share it, as with several labels, any of them is right.
        logits: `(B, classes)`; where one is not finite the row is wrong.
        losses: `(B,)`.
        weights: `(B,)`; `None` for 1 where there is a label, 0 where an image was unreadable.
    """
    if weights is None:
        weights = ops.cast(ops.any(labels > 0, axis=-1), "float32")
    is_label = ops.equal(labels, ops.max(labels, axis=-1, keepdims=True))
    first = ops.expand_dims(ops.argmax(logits, axis=-1), -1)
    right = ops.take_along_axis(ops.cast(is_label, "float32"), first, axis=-1)[:, 0]
    of_labels = ops.where(is_label, logits, -float("inf"))
    best = ops.max(of_labels, axis=-1, keepdims=True)
    place = ops.cast(ops.argmax(of_labels, axis=-1, keepdims=True), "int32")
    # Among equal logits the first class comes first, as in `evaluate`.
    tied = ops.equal(logits, best) & (np.arange(logits.shape[-1], dtype="int32") < place)
    before = ops.sum(ops.cast((logits > best) | tied, "int32"), axis=-1)
    # Nothing is larger than NaN, which would make it the first of all.
    broken = ops.any(ops.logical_not(ops.isfinite(logits)), axis=-1)
    answers = 1 - ops.cast(broken, "float32")
    columns = [losses, right * answers, ops.cast(before < 5, "float32") * answers]
    return ops.stack([*(ops.sum(column * weights) for column in columns), ops.sum(weights)])


@dataclasses.dataclass
class Totals:
    """Loss and accuracies of all rows since the beginning of an epoch.

    Added up in float64 and in the order of the steps, so that they do not depend on when the
    steps were done, or in how many parts of a run.
    """

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    rows: float = 0.0

    def add(self, sums: np.ndarray) -> None:
        """Adds the first four columns of what a `Step` returned, `(5,)`."""
        self.loss += float(sums[0])
        self.top1 += float(sums[1])
        self.top5 += float(sums[2])
        self.rows += float(sums[3])

    @property
    def means(self) -> dict[str, float]:
        """`{"loss", "accuracy", "top5_accuracy"}`, over the rows that could be read."""
        rows = self.rows or float("nan")
        return {
            "loss": self.loss / rows,
            "accuracy": self.top1 / rows,
            "top5_accuracy": self.top5 / rows,
        }
