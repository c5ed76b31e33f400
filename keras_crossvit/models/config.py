"""What an architecture is: two frozen dataclasses."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras_crossvit.common.checks import check_positive, check_positive_int
from keras_crossvit.common.registry import Registry
from keras_crossvit.layers import FUSIONS, PATCH_EMBEDS
from keras_crossvit.weights import PublishedWeights

PRESETS = Registry("preset")  # of `Preset`s; `models/presets.py` has the rows


@dataclasses.dataclass(frozen=True)
class BranchConfig:
    """One branch.

    Args:
        image_size: Side of the square image that the branch sees when the model's input has
            its default size, in pixels; a multiple of `patch_size`.
        patch_size: Side of a patch, in pixels.
        embed_dim: Width C of the tokens.
        depth: Encoders per stage (N for the small, M for the large branch), positive.
        num_heads: Attention heads, a divisor of `embed_dim`.
        mlp_ratio: Hidden width of the feed-forward network over `embed_dim` (r).

    Raises:
        ValueError: If a value is outside its range.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float

    def __post_init__(self):
        for name in ("image_size", "patch_size", "embed_dim", "depth", "num_heads"):
            check_positive_int(name, getattr(self, name))
        check_positive("mlp_ratio", self.mlp_ratio)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of patch_size={self.patch_size}. "
                f"Received: image_size={self.image_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide embed_dim={self.embed_dim}. "
                f"Received: num_heads={self.num_heads}"
            )


@dataclasses.dataclass(frozen=True)
class CrossViTConfig:
    """A CrossViT architecture: everything that the paper varies (tables 1, 2, 6 and 7).

    `CrossViTConfig.preset(name)` reads one row of the table of presets;
    `dataclasses.replace(config, fusion=...)` edits it, and so does
    `dataclasses.replace(config, small=dataclasses.replace(config.small, depth=2))`.
    `dataclasses.replace(config, small=None, fusion="none")` is the large branch alone: the
    DeiT baseline of table 2.

    Args:
        small: The small (complementary) branch, the S-branch of figure 2; `None` for a
            model of the large branch alone.
        large: The large (primary) branch, the L-branch of figure 2.
        num_stages: Multi-scale blocks in a row (K), positive.
        fusion: Name of the fusion that ends each block, a key of
            `keras_crossvit.layers.FUSIONS`; "none" without a small branch.
        fusion_depth: Fusion modules in a row (L), positive; 1 but for cross-attention.
        patch_embed: Name of the patch embedding of both branches, a key of
            `keras_crossvit.layers.PATCH_EMBEDS`.
        class_token: Whether each branch has a class token. `False` is the model of
            "Importance of CLS Tokens" (section 4.3): the average of a branch's patch tokens
            is the query of its cross-attention, and the average of the normalised patch
            tokens goes into its head.

    Raises:
        ValueError: If a value is outside its range.
    """

    small: BranchConfig | None
    large: BranchConfig
    num_stages: int = 3
    fusion: str = "cross_attention"
    fusion_depth: int = 1
    patch_embed: str = "linear"
    class_token: bool = True

    def __post_init__(self):
        for name, branch in self.branches.items():
            if not isinstance(branch, BranchConfig):
                raise ValueError(f"`{name}` must be a BranchConfig. Received: {name}={branch!r}")
        check_positive_int("num_stages", self.num_stages)
        check_positive_int("fusion_depth", self.fusion_depth)
        FUSIONS.check("fusion", self.fusion)
        PATCH_EMBEDS.check("patch_embed", self.patch_embed)
        if self.small is None and self.fusion != "none":
            raise ValueError(
                "`fusion` must be 'none' for a model of one branch (small=None). "
                f"Received: fusion={self.fusion!r}"
            )

    @classmethod
    def preset(cls, name: str) -> "CrossViTConfig":
        """The configuration of a published model, by name; `keras_crossvit.presets()` lists them.

        Raises:
            ValueError: If there is no preset of that name.
        """
        return PRESETS[PRESETS.check("name", name)].config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CrossViTConfig":
        """The configuration of which `dataclasses.asdict` made `values`."""
        branches = {
            name: None if values[name] is None else BranchConfig(**values[name])
            for name in ("small", "large")
        }
        return cls(**{**values, **branches})

    @property
    def branches(self) -> dict[str, BranchConfig]:
        """The branches by name, the small one first: `{"small": ..., "large": ...}`."""
        both = {"small": self.small, "large": self.large}
        return both if self.small is not None else {"large": self.large}

    @property
    def input_size(self) -> int:
        """Side of the default input, in pixels: what the first branch sees unresized."""
        return next(iter(self.branches.values())).image_size

    def branch_sizes(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """The sizes at which the branches see an input of `(height, width)` pixels.

        The small branch sees the nearest multiples of its patch size. The large branch
        sees the input scaled by the ratio of the branches' image sizes, rounded up to its
        patch size: for the published models `16 * ceil(7 * height / 120)`. A large branch
        alone sees the nearest multiples of its patch size.

        Returns:
            `{"small": (rows, columns), "large": (rows, columns)}` in pixels, without
            "small" for a model of one branch.

        Raises:
            ValueError: If a side is smaller than a patch of either branch.
        """
        smallest = max(branch.patch_size for branch in self.branches.values())
        if min(height, width) < smallest:
            raise ValueError(
                f"`input_shape` must be at least {smallest} pixels high and wide, one patch "
                f"of either branch. Received: height={height}, width={width}"
            )

        def nearest(side, patch):
            return patch * math.floor(side / patch + 0.5)

        def scaled(side):
            # Whole numbers only: a float quotient could round a fitting size up.
            per_patch = self.small.image_size * self.large.patch_size
            return self.large.patch_size * -(-side * self.large.image_size // per_patch)

        if self.small is None:
            return {"large": tuple(nearest(s, self.large.patch_size) for s in (height, width))}
        return {
            "small": tuple(nearest(s, self.small.patch_size) for s in (height, width)),
            "large": (scaled(height), scaled(width)),
        }

    def grids(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """Rows and columns of each branch's patches for an input of `(height, width)` pixels.

        Returns and raises as `branch_sizes`, in patches.
        """
        sizes = self.branch_sizes(height, width)
        return {
            name: tuple(side // branch.patch_size for side in sizes[name])
            for name, branch in self.branches.items()
        }


@dataclasses.dataclass(frozen=True)
class Preset:
    """A row of the table of presets.

    Args:
        config: The architecture.
        weights: Published weights, by the value of `weights` that asks for them.
    """

    config: CrossViTConfig
    weights: Mapping[str, PublishedWeights]
