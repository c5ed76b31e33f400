"""The optimizer of a run, from its values."""

import keras

from keras_crossvit.common.checks import (
    check_choice,
    check_not_negative,
    check_not_negative_int,
    check_positive,
    check_positive_int,
    check_rate,
    check_up_to,
)
from keras_crossvit.optimizer.adamw import AdamW
from keras_crossvit.optimizer.rates import learning_rate_schedule
from keras_crossvit.optimizer.sgd import SGD


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
        total_steps: Steps of the whole run, positive.
        warmup_steps: Steps over which the learning rate rises from 0, at most `total_steps`.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        final_learning_rate: Where the cosine ends.
        clip_norm: Maximum norm of all gradients together, over the global batch; `None` clips
            nothing.
        ema_momentum: Momentum of the moving average of the weights; `None` for no average. A run
            evaluates and keeps the average; after `model.fit`, put it in place of the weights by
            the optimizer's `put_average_in_place(model.trainable_variables)`, for a
            `LossScaleOptimizer` that of its `inner_optimizer`.
        layer_decay: Factor of the learning rate, and with it of the decay, from each stage to the
            one before, in (0, 1], with the groups of timm's `--layer-decay`. `None` for 1.

    Returns:
        An optimizer built for `model`, in a `LossScaleOptimizer` if `mixed_float16` is the policy
        of the model or the global one. It can be given to `model.compile`, and is saved and
        loaded with the model.

    Raises:
        ValueError: If a value is outside its range.
    """
    total_steps = check_positive_int("total_steps", total_steps)
    warmup_steps = check_not_negative_int("warmup_steps", warmup_steps)
    if warmup_steps > total_steps:
        raise ValueError(
            f"`warmup_steps` must be at most total_steps={total_steps}. "
            f"Received: warmup_steps={warmup_steps}"
        )
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
    # Keras' `compile` goes by the model's policy.
    if "mixed_float16" in (model.dtype_policy.name, keras.config.dtype_policy().name):
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
        check_up_to("layer_decay", layer_decay)
