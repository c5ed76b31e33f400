"""What lies between the embeddings and the heads: encoders of two branches, or of one.

A model of one branch is a DeiT, the baseline of tables 2 and 8. Paper: Touvron et al.,
"Training data-efficient image transformers & distillation through attention", ICML 2021.
DeiT-Ti, -S and -B are the large branches of CrossViT-Ti, -S and -B, and DeiT-9, -15 and -18
(with and without dagger) those of CrossViT-9, -15 and -18, with one head and without
distillation.
"""

import numpy as np

from keras_crossvit.common.checks import check_rate
from keras_crossvit.layers import MultiScaleBlock, TransformerBlock


def encode(tokens, config, grids, drop_path_rate, gradient_checkpointing):
    """The K stages of a model.

    Args:
        tokens: `{branch: Keras tensor (B, 1 + N, C)}`, as `config.branches`.
        config: A `CrossViTConfig`.
        grids: `{branch: (rows, columns) of patches}`.
        drop_path_rate: Rate of the last encoder, in [0, 1); grows linearly from 0 at the
            first, counted in the deeper branch.
        gradient_checkpointing: As in `TransformerBlock`.

    Returns:
        `{branch: Keras tensor of the same shape}`.

    Raises:
        ValueError: If `drop_path_rate` is outside [0, 1).
    """
    check_rate("drop_path_rate", drop_path_rate)
    depth = max(branch.depth for branch in config.branches.values())
    rates = np.linspace(0, drop_path_rate, config.num_stages * depth)
    if config.small is None:
        return {"large": _one_branch(tokens["large"], config, rates, gradient_checkpointing)}
    rates = rates.reshape(config.num_stages, depth)
    outputs = _two_branches(list(tokens.values()), config, grids, rates, gradient_checkpointing)
    return dict(zip(tokens, outputs, strict=True))


def _one_branch(tokens, config, rates, gradient_checkpointing):
    for index, rate in enumerate(rates):
        tokens = TransformerBlock(
            config.large.num_heads,
            config.large.mlp_ratio,
            drop_path_rate=rate,
            gradient_checkpointing=gradient_checkpointing,
            name=f"large_block_{index}",
        )(tokens)
    return tokens


def _two_branches(tokens, config, grids, rates, gradient_checkpointing):
    for stage, stage_rates in enumerate(rates):
        tokens = MultiScaleBlock(
            small_depth=config.small.depth,
            large_depth=config.large.depth,
            small_num_heads=config.small.num_heads,
            large_num_heads=config.large.num_heads,
            small_mlp_ratio=config.small.mlp_ratio,
            large_mlp_ratio=config.large.mlp_ratio,
            fusion=config.fusion,
            fusion_depth=config.fusion_depth,
            drop_path_rates=stage_rates,
            gradient_checkpointing=gradient_checkpointing,
            class_token=config.class_token,
            small_grid=grids["small"],
            large_grid=grids["large"],
            name=f"stage_{stage}",
        )(tokens)
    return tokens
