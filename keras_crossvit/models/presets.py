"""The published architectures: table 1 of the paper, a row a model."""

from keras_crossvit.models.config import PRESETS, BranchConfig, CrossViTConfig


def _row(patch_embed, patch, dim, heads, m, r):
    """One row of table 1; K = 3, N = 1 and L = 1 for all.

    The paper gives 224 pixels as the input; in the released code, which made the
    checkpoints, the small branch sees 240 and the large branch 224.
    """
    small = BranchConfig(240, patch[0], dim[0], depth=1, num_heads=heads, mlp_ratio=r)
    large = BranchConfig(224, patch[1], dim[1], depth=m, num_heads=heads, mlp_ratio=r)
    return CrossViTConfig(small, large, patch_embed=patch_embed)


PRESETS |= {
    #                            patch embedding, size,   dimension,  heads, M, r
    "crossvit_tiny": _row("linear", (12, 16), (96, 192), 3, 4, 4),
    "crossvit_small": _row("linear", (12, 16), (192, 384), 6, 4, 4),
    "crossvit_base": _row("linear", (12, 16), (384, 768), 12, 4, 4),
    "crossvit_9": _row("linear", (12, 16), (128, 256), 4, 3, 3),
    "crossvit_15": _row("linear", (12, 16), (192, 384), 6, 5, 3),
    "crossvit_18": _row("linear", (12, 16), (224, 448), 7, 6, 3),
    "crossvit_9_dagger": _row("conv", (12, 16), (128, 256), 4, 3, 3),
    "crossvit_15_dagger": _row("conv", (12, 16), (192, 384), 6, 5, 3),
    "crossvit_18_dagger": _row("conv", (12, 16), (224, 448), 7, 6, 3),
}


def presets():
    """The names of the presets, in the order of the paper's table 1."""
    return list(PRESETS)


def preset_name(config):
    """The name of the preset that equals `config`, or None."""
    return next((name for name, preset in PRESETS.items() if preset == config), None)
