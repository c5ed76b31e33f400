"""The base class of the fusions, and their registry."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_crossvit.common.checks import check_grid, check_positive_int, check_rate
from keras_crossvit.common.registry import Registry
from keras_crossvit.common.typing import Shape
from keras_crossvit.layers.parts import tokens_spec


class Fusion(keras.layers.Layer):
    """Base class of the fusions of section 3.3.

    A subclass implements `build(input_shape)` and `call(tokens, training=False)`, where
    `tokens` is `[small, large]` with shapes `(B, 1 + N_small, C_small)` and
    `(B, 1 + N_large, C_large)`, class token first. `call` returns both in the same shapes. Once
    registered with `register_fusion`, its name is a value of `CrossViTConfig.fusion`. All
    arguments below are available to the subclass as attributes.

    Args:
        small_num_heads: Attention heads of the small branch.
        large_num_heads: Attention heads of the large branch.
        depth: Number of fusion modules in sequence (L of table 1), positive; must be 1 if the
            class has `stackable = False`.
        drop_path_rate: Probability that a sample skips a residual path, in [0, 1).
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.
        class_token: Whether the first token of each branch is a class token; if not,
            the shapes are `(B, N_small, C_small)` and `(B, N_large, C_large)`. Must be True if
            the class has `needs_class_token = True`.
        small_grid: `(rows, columns)` of the small branch's patches; `None` if unknown.
        large_grid: `(rows, columns)` of the large branch's patches; `None` if unknown.

    Raises:
        ValueError: If an argument is outside its range.
    """

    stackable = True
    needs_class_token = False

    def __init__(
        self,
        small_num_heads: int,
        large_num_heads: int,
        depth: int = 1,
        drop_path_rate: float = 0.0,
        seed: int | None = None,
        class_token: bool = True,
        small_grid: tuple[int, int] | None = None,
        large_grid: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.small_num_heads = check_positive_int("small_num_heads", small_num_heads)
        self.large_num_heads = check_positive_int("large_num_heads", large_num_heads)
        self.depth = self._check_depth(depth)
        self.drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
        self.seed = seed
        self.class_token = self._check_class_token(class_token)
        self.small_grid = check_grid("small_grid", small_grid)
        self.large_grid = check_grid("large_grid", large_grid)
        self.input_spec = [tokens_spec(), tokens_spec()]

    def _check_depth(self, depth):
        check_positive_int("depth", depth)
        if depth > 1 and not self.stackable:
            raise ValueError(
                f"`depth` (a configuration's `fusion_depth`) must be 1 for {type(self).__name__}, "
                f"which cannot be stacked. Received: depth={depth}"
            )
        return depth

    def _check_class_token(self, class_token):
        if self.needs_class_token and not class_token:
            raise ValueError(
                f"`class_token` must be True for {type(self).__name__}, which fuses class tokens. "
                f"Received: class_token={class_token}"
            )
        return class_token

    @property
    def attentions(self) -> list[keras.layers.Layer]:
        """The attention layers of a built fusion; a subclass that has any overrides this."""
        return []

    def patch_grids(self, input_shape: list[Shape]) -> list[tuple[int, int]]:
        """The patch grids of both branches, for a fusion that needs the positions of patches.

        A grid that was not given is assumed to be square.

        Args:
            input_shape: As in `build`.

        Returns:
            `[(rows, columns), (rows, columns)]`, small branch first.

        Raises:
            ValueError: If a branch's number of tokens is unknown, or a grid does not have its
                number of patches, or was not given and that number is not a square.
        """
        grids = []
        for name, shape in zip(("small_grid", "large_grid"), input_shape, strict=True):
            if shape[1] is None:
                raise ValueError(
                    f"{type(self).__name__} needs a known number of tokens. "
                    f"Received: input_shape={input_shape}"
                )
            patches = shape[1] - self.class_token
            side = math.isqrt(patches)
            rows, columns = getattr(self, name) or (side, side)
            if rows * columns != patches:
                raise ValueError(
                    f"`{name}` must be (rows, columns) with a product of {patches}, the number of "
                    f"patches, or None if square. Received: {name}={getattr(self, name)}"
                )
            grids.append((rows, columns))
        return grids

    def compute_output_shape(self, input_shape: list[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in input_shape]

    def macs(self, input_shape: list[Shape]) -> int:
        """Multiply-accumulates for one sample; a subclass that has any overrides this."""
        return 0

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "small_num_heads": self.small_num_heads,
            "large_num_heads": self.large_num_heads,
            "depth": self.depth,
            "drop_path_rate": self.drop_path_rate,
            "seed": self.seed,
            "class_token": self.class_token,
            "small_grid": self.small_grid,
            "large_grid": self.large_grid,
        }


FUSIONS = Registry("fusion")


def register_fusion(name: str) -> Callable[[type[Fusion]], type[Fusion]]:
    """Class decorator that registers a `Fusion` under `name`.

    The name is then a value of `CrossViTConfig.fusion`. The class is also registered with Keras,
    so that models that use it can be saved and loaded.

    Args:
        name: The name.

    Raises:
        ValueError: If another class has that name, or is registered with Keras under the class'
            own name, or if it is not derived from `Fusion`.
    """
    return FUSIONS.register_layer(name, Fusion)
