"""AdamW as ViTs are trained with it."""

import keras


def make_optimizer(model, learning_rate, weight_decay, total_steps, warmup_steps):
    """AdamW, linear warm-up, then cosine to zero, per step (section 4.1).

    Kernels decay alone: class tokens, position embeddings, biases and norm parameters do
    not. (timm's rule; in the authors' run tokens and positions decayed, by a name that did
    not match.)

    Args:
        model: A built model.
        learning_rate: Highest learning rate.
        weight_decay: Decay of kernels.
        total_steps: Steps of the whole run.
        warmup_steps: Steps in which the learning rate rises.

    Returns:
        An optimizer built for `model`; building it here saves `fit` a second trace.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total_steps - warmup_steps),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    if warmup_steps == 0:
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, total_steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not v.path.endswith("/kernel")]
    )
    optimizer.build(model.trainable_variables)
    return optimizer
