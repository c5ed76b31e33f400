"""The multi-scale transformer encoder."""

import keras

from keras_crossvit.common.checks import check_grid, check_positive_int
from keras_crossvit.layers.drop_path import child_seeds
from keras_crossvit.layers.fusions import FUSIONS
from keras_crossvit.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="keras_crossvit")
class MultiScaleBlock(keras.layers.Layer):
    """One of the K multi-scale transformer encoders of figure 2.

    N encoders for the small branch, M for the large one, then a fusion of the two.

    Args:
        small_depth: Encoders of the small branch (N of table 1), positive.
        large_depth: Encoders of the large branch (M of table 1), positive.
        small_num_heads: Attention heads of the small branch.
        large_num_heads: Attention heads of the large branch.
        small_mlp_ratio: Hidden width of the small branch's FFN over its width.
        large_mlp_ratio: Hidden width of the large branch's FFN over its width.
        fusion: Name of the fusion, a key of `keras_crossvit.layers.FUSIONS`.
        fusion_depth: Fusion modules in a row (L of table 1), positive.
        drop_path_rates: `max(small_depth, large_depth)` rates in [0, 1). Encoder i of either
            branch uses rate i and the fusion the last one, as in the released code.
            `None` means zeros.
        gradient_checkpointing: As in `TransformerBlock`.
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.
        class_token: Whether the first token of each branch is a class token.
        small_grid: `(rows, columns)` of the small branch's patches, for fusions that need
            to know; `None` leaves it to the fusion, which may take the grid to be square.
        large_grid: `(rows, columns)` of the large branch's patches, or `None`, likewise.

    Call arguments:
        tokens: `[small, large]`, `(B, 1 + N_small, C_small)` and `(B, 1 + N_large, C_large)`;
            without class tokens there is no `1 +`.
        training: Whether paths are dropped.

    Returns:
        `[small, large]`, shapes as in the input.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        small_depth=1,
        large_depth=4,
        small_num_heads=6,
        large_num_heads=6,
        small_mlp_ratio=4.0,
        large_mlp_ratio=4.0,
        fusion="cross_attention",
        fusion_depth=1,
        drop_path_rates=None,
        gradient_checkpointing=False,
        seed=None,
        class_token=True,
        small_grid=None,
        large_grid=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.small_depth = check_positive_int("small_depth", small_depth)
        self.large_depth = check_positive_int("large_depth", large_depth)
        self.small_num_heads = small_num_heads
        self.large_num_heads = large_num_heads
        self.small_mlp_ratio = small_mlp_ratio
        self.large_mlp_ratio = large_mlp_ratio
        self.fusion = FUSIONS.check("fusion", fusion)
        self.fusion_depth = fusion_depth
        self.drop_path_rates = self._check_rates(drop_path_rates)
        self.gradient_checkpointing = gradient_checkpointing
        self.seed = seed
        self.class_token = class_token
        self.small_grid = check_grid("small_grid", small_grid)
        self.large_grid = check_grid("large_grid", large_grid)
        self._seeds = child_seeds(seed)
        self.small_blocks = self._blocks("small", small_depth, small_num_heads, small_mlp_ratio)
        self.large_blocks = self._blocks("large", large_depth, large_num_heads, large_mlp_ratio)
        self.fuse = FUSIONS[fusion](
            small_num_heads,
            large_num_heads,
            depth=fusion_depth,
            drop_path_rate=self.drop_path_rates[-1],
            seed=next(self._seeds),
            class_token=class_token,
            small_grid=small_grid,
            large_grid=large_grid,
            dtype=self.dtype_policy,
            name="fusion",
        )

    def _check_rates(self, rates):
        depth = max(self.small_depth, self.large_depth)
        rates = [0.0] * depth if rates is None else [float(rate) for rate in rates]
        if len(rates) != depth:
            raise ValueError(
                f"`drop_path_rates` must hold {depth} rates, one per encoder of the deeper "
                f"branch. Received: drop_path_rates={rates}"
            )
        return rates

    def _blocks(self, branch, depth, num_heads, mlp_ratio):
        return [
            TransformerBlock(
                num_heads,
                mlp_ratio,
                drop_path_rate=self.drop_path_rates[index],
                gradient_checkpointing=self.gradient_checkpointing,
                seed=next(self._seeds),
                dtype=self.dtype_policy,
                name=f"{branch}_block_{index}",
            )
            for index in range(depth)
        ]

    def build(self, input_shape):
        small_shape, large_shape = input_shape
        for block in self.small_blocks:
            block.build(small_shape)
        for block in self.large_blocks:
            block.build(large_shape)
        self.fuse.build(input_shape)

    def call(self, tokens, training=False):
        return self.fuse(self.encode(tokens, training=training), training=training)

    def encode(self, tokens, training=False):
        """The tokens `[small, large]` after the encoders, before the fusion."""
        small, large = tokens
        for block in self.small_blocks:
            small = block(small, training=training)
        for block in self.large_blocks:
            large = block(large, training=training)
        return [small, large]

    def compute_output_shape(self, input_shape):
        return [tuple(shape) for shape in input_shape]

    def macs(self, input_shape):
        """Multiply-accumulates for one sample."""
        small_shape, large_shape = input_shape
        return (
            sum(block.macs(small_shape) for block in self.small_blocks)
            + sum(block.macs(large_shape) for block in self.large_blocks)
            + self.fuse.macs(input_shape)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "small_depth": self.small_depth,
            "large_depth": self.large_depth,
            "small_num_heads": self.small_num_heads,
            "large_num_heads": self.large_num_heads,
            "small_mlp_ratio": self.small_mlp_ratio,
            "large_mlp_ratio": self.large_mlp_ratio,
            "fusion": self.fusion,
            "fusion_depth": self.fusion_depth,
            "drop_path_rates": self.drop_path_rates,
            "gradient_checkpointing": self.gradient_checkpointing,
            "seed": self.seed,
            "class_token": self.class_token,
            "small_grid": self.small_grid,
            "large_grid": self.large_grid,
        }
