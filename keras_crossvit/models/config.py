"""The configuration of an architecture: two frozen dataclasses."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras_crossvit.common.checks import check_bool, check_positive, check_positive_int, make_plain
from keras_crossvit.common.registry import Registry
from keras_crossvit.layers import FUSIONS, PATCH_EMBEDS
from keras_crossvit.weights import PublishedWeights

PRESETS = Registry("preset")  # of `Preset`s, registered in `models/presets.py`


@dataclasses.dataclass(frozen=True)
class BranchConfig:
    """The architecture of one branch.

    Args:
        image_size: Side of the square image that the branch sees when the model's input has
            its default size, in pixels, a multiple of `patch_size`.
        patch_size: Side of the square patches, in pixels.
        embed_dim: Width C of the tokens.
        depth: Encoders per stage (N of the small branch, M of the large branch), positive.
        num_heads: Attention heads, a divisor of `embed_dim`.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of `embed_dim` (r).

    Raises:
        ValueError: If a value is outside its range.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float

    def __post_init__(self) -> None:
        make_plain(self)
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

    `CrossViTConfig.preset(name)` returns the configuration of a preset. To change it, use
    `dataclasses.replace(config, fusion=...)` or
    `dataclasses.replace(config, small=dataclasses.replace(config.small, depth=2))`.
    `dataclasses.replace(config, small=None, fusion="none")` is the large branch alone, the
    DeiT baseline of table 2.

    Args:
        small: The small (complementary) branch, the S-branch of figure 2; `None` for a
            model with the large branch alone.
        large: The large (primary) branch, the L-branch of figure 2.
        num_stages: Number of multi-scale blocks (K), positive.
        fusion: Name of the fusion at the end of each block, a key of
            `keras_crossvit.layers.FUSIONS`; "none" if there is no small branch.
        fusion_depth: Number of fusion modules in sequence (L), positive; 1 for all fusions but
            cross-attention.
        patch_embed: Name of the patch embedding of both branches, a key of
            `keras_crossvit.layers.PATCH_EMBEDS`.
        class_token: Whether each branch has a class token. `False` is the model of
            "Importance of CLS Tokens" (section 4.3), in which the average of a branch's patch
            tokens is the query of its cross-attention, and the average of the normalised patch
            tokens is the input of its head.

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

    def __post_init__(self) -> None:
        make_plain(self)
        for name, branch in self.branches.items():
            if not isinstance(branch, BranchConfig):
                raise ValueError(f"`{name}` must be a BranchConfig. Received: {name}={branch!r}")
        check_bool("class_token", self.class_token)
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
        """The configuration of the preset `name`; `keras_crossvit.presets()` lists the names.

        Raises:
            ValueError: If there is no preset of that name.
        """
        return PRESETS[PRESETS.check("name", name)].config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CrossViTConfig":
        """The configuration from the dictionary that `dataclasses.asdict` made of it."""
        branches = {
            name: None if values[name] is None else BranchConfig(**values[name])
            for name in ("small", "large")
        }
        flag = {"class_token": bool(values.get("class_token", True))}  # 1 in some older files
        return cls(**{**values, **branches, **flag})

    @property
    def branches(self) -> dict[str, BranchConfig]:
        """The branches by name, the small one first: `{"small": ..., "large": ...}`."""
        if self.small is None:
            return {"large": self.large}
        return {"small": self.small, "large": self.large}

    @property
    def input_size(self) -> int:
        """Side of the default input, in pixels: the first branch sees it without a resize."""
        return next(iter(self.branches.values())).image_size

    def branch_sizes(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """The sizes at which the branches see an input of `(height, width)` pixels.

        For the small branch, both sides become the nearest multiples of its patch size. For the
        large branch, they are scaled by the ratio of the branches' image sizes and rounded up
        to multiples of its patch size: `16 * ceil(7 * height / 120)` for the published models.
        In a model with the large branch alone, they become the nearest multiples of its patch
        size.

        Returns:
            `{"small": (height, width), "large": (height, width)}` in pixels, without
            "small" if the model has no small branch.

        Raises:
            ValueError: If a side is smaller than a patch of either branch.
        """
        smallest = max(branch.patch_size for branch in self.branches.values())
        if min(height, width) < smallest:
            raise ValueError(
                f"`input_shape` must be at least {smallest} pixels high and wide, one patch "
                f"of either branch. Received: height={height}, width={width}"
            )

        small, large = self.small, self.large

        def nearest(side, patch):
            return patch * math.floor(side / patch + 0.5)

        if small is None:
            return {"large": (nearest(height, large.patch_size), nearest(width, large.patch_size))}

        def scaled(side):
            # In integers only: a rounding error could make the ceiling one patch too large.
            per_patch = small.image_size * large.patch_size
            return large.patch_size * -(-side * large.image_size // per_patch)

        return {
            "small": (nearest(height, small.patch_size), nearest(width, small.patch_size)),
            "large": (scaled(height), scaled(width)),
        }

    def grids(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """Rows and columns of each branch's patches for an input of `(height, width)` pixels.

        Returns and raises as `branch_sizes` does, but counts patches.
        """
        return self.grids_of(self.branch_sizes(height, width))

    def grids_of(self, sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Rows and columns of each branch's whole patches in images of these sizes, in pixels.

        `sizes` is `{"small": (height, width), "large": (height, width)}`, and so is the result.
        """
        return {
            name: (sizes[name][0] // branch.patch_size, sizes[name][1] // branch.patch_size)
            for name, branch in self.branches.items()
        }


@dataclasses.dataclass(frozen=True)
class Preset:
    """An architecture with a name.

    Args:
        config: The architecture.
        weights: Published weights, by the value of the `weights` argument that selects them.
    """

    config: CrossViTConfig
    weights: Mapping[str, PublishedWeights]
