"""The multi-scale transformer encoder."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_crossvit.common.checks import check_grid, check_positive_int
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.drop_path import child_seeds
from keras_crossvit.layers.fusions import FUSIONS
from keras_crossvit.layers.parts import tokens_spec, track
from keras_crossvit.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="keras_crossvit")
class MultiScaleBlock(keras.layers.Layer):
    """One of the K multi-scale transformer encoders of figure 2.

    N transformer encoders in the small branch and M in the large one, then a fusion of the two.

    Args:
        small_depth: Encoders of the small branch (N of table 1), positive.
        large_depth: Encoders of the large branch (M of table 1), positive.
        small_num_heads: Attention heads of the small branch.
        large_num_heads: Attention heads of the large branch.
        small_mlp_ratio: Hidden width of the small branch's FFN, as a multiple of its width.
        large_mlp_ratio: Hidden width of the large branch's FFN, as a multiple of its width.
        fusion: Name of the fusion, a key of `keras_crossvit.layers.FUSIONS`.
        fusion_depth: Number of fusion modules in sequence (L of table 1), positive.
        drop_path_rates: `max(small_depth, large_depth)` rates in [0, 1), and with a
            `fusion_depth` above 1, which the released code counts as further depth, optionally
            `fusion_depth` more. Encoder i of either branch uses rate i, and all modules of the
            fusion use the last rate, as in the released code. `None`: no paths are dropped.
        gradient_checkpointing: As in `TransformerBlock`.
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.
        class_token: Whether the first token of each branch is a class token.
        small_grid: `(rows, columns)` of the small branch's patches, for fusions that need
            it; with `None` they assume a square grid.
        large_grid: The same for the large branch.

    Call arguments:
        tokens: `[small, large]`, `(B, 1 + N_small, C_small)` and `(B, 1 + N_large, C_large)`;
            without class tokens, `N_small` and `N_large` tokens.
        training: Whether paths are dropped.

    Returns:
        `[small, large]`, in the shapes of the input.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        small_depth: int = 1,
        large_depth: int = 4,
        small_num_heads: int = 6,
        large_num_heads: int = 6,
        small_mlp_ratio: float = 4.0,
        large_mlp_ratio: float = 4.0,
        fusion: str = "cross_attention",
        fusion_depth: int = 1,
        drop_path_rates: Sequence[float] | None = None,
        gradient_checkpointing: bool = False,
        seed: int | None = None,
        class_token: bool = True,
        small_grid: tuple[int, int] | None = None,
        large_grid: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.small_depth = check_positive_int("small_depth", small_depth)
        self.large_depth = check_positive_int("large_depth", large_depth)
        self.small_num_heads = small_num_heads
        self.large_num_heads = large_num_heads
        self.small_mlp_ratio = small_mlp_ratio
        self.large_mlp_ratio = large_mlp_ratio
        self.fusion = FUSIONS.check("fusion", fusion)
        self.fusion_depth = check_positive_int("fusion_depth", fusion_depth)
        self.drop_path_rates = self._check_rates(drop_path_rates)
        self.gradient_checkpointing = gradient_checkpointing
        self.seed = seed
        self.class_token = class_token
        self.small_grid = check_grid("small_grid", small_grid)
        self.large_grid = check_grid("large_grid", large_grid)
        self._seeds = child_seeds(seed)
        self.small_blocks = self._blocks("small", small_depth, small_num_heads, small_mlp_ratio)
        self.large_blocks = self._blocks("large", large_depth, large_num_heads, large_mlp_ratio)
        track(self, [*self.small_blocks, *self.large_blocks])
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
        self.input_spec = [tokens_spec(), tokens_spec()]

    def _check_rates(self, rates):
        depth = max(self.small_depth, self.large_depth)
        rates = [0.0] * depth if rates is None else [float(rate) for rate in rates]
        more = self.fusion_depth if self.fusion_depth > 1 else 0
        if len(rates) not in (depth, depth + more):
            raise ValueError(
                f"`drop_path_rates` must hold {depth} rates, one per encoder of the deeper "
                f"branch{f', or {more} more for the fusion' if more else ''}. "
                f"Received: drop_path_rates={rates}"
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

    def build(self, input_shape: list[Shape]) -> None:
        small_shape, large_shape = input_shape
        self.input_spec = [tokens_spec(shape[-1]) for shape in input_shape]
        for block in self.small_blocks:
            block.build(small_shape)
        for block in self.large_blocks:
            block.build(large_shape)
        self.fuse.build(input_shape)

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        return self.fuse(self.encode(tokens, training=training), training=training)

    def encode(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        """The tokens `[small, large]` after the encoders, before the fusion."""
        small, large = tokens
        for block in self.small_blocks:
            small = block(small, training=training)
        for block in self.large_blocks:
            large = block(large, training=training)
        return [small, large]

    def compute_output_shape(self, input_shape: list[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in input_shape]

    def macs(self, input_shape: list[Shape]) -> int:
        """Multiply-accumulates for one sample."""
        small_shape, large_shape = input_shape
        return (
            sum(block.macs(small_shape) for block in self.small_blocks)
            + sum(block.macs(large_shape) for block in self.large_blocks)
            + self.fuse.macs(input_shape)
        )

    def get_config(self) -> dict[str, Any]:
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
