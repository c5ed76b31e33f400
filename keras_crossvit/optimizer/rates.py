"""The learning rate of each step, and of each variable."""

import re
from collections.abc import Sequence

import keras

# Where a variable lies, by the first part of its path, or a later one inside a model that holds
# this one; anything else is a head.
_EMBEDDING = re.compile("(^|/)(small|large)_(patch_embed|class_token|position_embedding)/")
_STAGE = re.compile(r"(?:^|/)(?:stage|large_block)_(\d+)/")
_NORM = re.compile("(^|/)(small|large)_norm/")


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
