"""What an optimizer does across the replicas of `tf.distribute`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_crossvit.common.typing import Tensor


def sum_over_replicas(
    gradients: Sequence[Tensor | None],
) -> tuple[Sequence[Tensor | None], int]:
    """The gradients, added up over the replicas of tf.distribute, and the number of replicas.

    On JAX a gradient is already that of the global batch, as with one replica. What is `None`, as
    for a weight that the loss does not depend on, stays `None`.
    """
    if keras.backend.backend() != "tensorflow":
        return gradients, 1
    import tensorflow as tf

    # That of an embedding has a slice for each look-up, of which several may be of the same row.
    gradients = [x if x is None else tf.convert_to_tensor(x) for x in gradients]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return gradients, 1
    context = tf.distribute.get_replica_context()
    there = [gradient for gradient in gradients if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [x if x is None else next(summed) for x in gradients], replicas


def update_on_replicas(
    update: Callable[..., None], pairs: Sequence[tuple[Any, Any]], *arguments: Any
) -> None:
    """Calls `update(first, second, *arguments)` for each pair of variables, where `first` lies."""
    import tensorflow as tf

    def on_each(strategy, *arguments):
        for first, second in pairs:
            given = second.value, *arguments
            strategy.extended.update(first.value, update, args=given, group=False)

    # As Keras updates variables: some strategies take no update within a replica.
    merge = tf.__internal__.distribute.interim.maybe_merge_call
    merge(on_each, tf.distribute.get_strategy(), *arguments)
