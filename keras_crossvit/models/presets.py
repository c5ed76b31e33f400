"""The architectures of the paper: its tables 1, 2, 6 and 7, a row a model."""

import dataclasses

from keras_crossvit.models.config import PRESETS, BranchConfig, CrossViTConfig


def _row(patch_embed, patch, dim, heads, r, k=3, n=1, m=4, depth=1):
    """One row of table 1 or 7; `depth` is L.

    The paper gives 224 pixels as the input; in the released code, which made the
    checkpoints, the small branch sees 240 and the large branch 224. Patches of 8 pixels
    divide 224, and only with 224 for both has row A of table 7 its 6.7 GFLOPs.
    """
    side = 224 if 224 % patch[0] == 0 else 240
    small = BranchConfig(side, patch[0], dim[0], depth=n, num_heads=heads, mlp_ratio=r)
    large = BranchConfig(224, patch[1], dim[1], depth=m, num_heads=heads, mlp_ratio=r)
    return CrossViTConfig(small, large, k, fusion_depth=depth, patch_embed=patch_embed)


def _change(name, **changes):
    """The preset `name` with other values."""
    return dataclasses.replace(PRESETS[name], **changes)


def _large_alone(name):
    """The DeiT baseline of a CrossViT: its large branch (table 2)."""
    return _change(name, small=None, fusion="none")


PRESETS |= {  # table 1: K = 3, N = 1 and L = 1 for all
    #                            patch embedding, size,   dimension,  heads, r, M
    "crossvit_tiny": _row("linear", (12, 16), (96, 192), 3, 4, m=4),
    "crossvit_small": _row("linear", (12, 16), (192, 384), 6, 4, m=4),
    "crossvit_base": _row("linear", (12, 16), (384, 768), 12, 4, m=4),
    "crossvit_9": _row("linear", (12, 16), (128, 256), 4, 3, m=3),
    "crossvit_15": _row("linear", (12, 16), (192, 384), 6, 3, m=5),
    "crossvit_18": _row("linear", (12, 16), (224, 448), 7, 3, m=6),
    "crossvit_9_dagger": _row("conv", (12, 16), (128, 256), 4, 3, m=3),
    "crossvit_15_dagger": _row("conv", (12, 16), (192, 384), 6, 3, m=5),
    "crossvit_18_dagger": _row("conv", (12, 16), (224, 448), 7, 3, m=6),
}

PRESETS |= {  # tables 2 and 8: the large branch alone; the first three are DeiT's own models
    "deit_tiny": _large_alone("crossvit_tiny"),
    "deit_small": _large_alone("crossvit_small"),
    "deit_base": _large_alone("crossvit_base"),
    "deit_9": _large_alone("crossvit_9"),
    "deit_15": _large_alone("crossvit_15"),
    "deit_18": _large_alone("crossvit_18"),
    "deit_9_dagger": _large_alone("crossvit_9_dagger"),
    "deit_15_dagger": _large_alone("crossvit_15_dagger"),
    "deit_18_dagger": _large_alone("crossvit_18_dagger"),
}

PRESETS |= {  # table 6; its last row, cross-attention, is crossvit_small itself
    "crossvit_small_none": _change("crossvit_small", fusion="none"),
    "crossvit_small_all_attention": _change("crossvit_small", fusion="all_attention"),
    "crossvit_small_class_token": _change("crossvit_small", fusion="class_token"),
    "crossvit_small_pairwise": _change("crossvit_small", fusion="pairwise"),
}

PRESETS |= {  # table 7; each row changes CrossViT-S in one thing (E in K and M)
    #                              patch size, dimension,         K,   N,   M,   L
    "crossvit_small_a": _row("linear", (8, 16), (192, 384), 6, 4, k=3, n=1, m=4, depth=1),
    "crossvit_small_b": _row("linear", (12, 16), (384, 384), 6, 4, k=3, n=1, m=4, depth=1),
    "crossvit_small_c": _row("linear", (12, 16), (192, 384), 6, 4, k=3, n=2, m=4, depth=1),
    "crossvit_small_d": _row("linear", (12, 16), (192, 384), 6, 4, k=3, n=1, m=4, depth=2),
    "crossvit_small_e": _row("linear", (12, 16), (192, 384), 6, 4, k=6, n=1, m=2, depth=1),
}

PRESETS |= {  # section 4.3, in the text
    "crossvit_small_no_class_token": _change("crossvit_small", class_token=False),
    "crossvit_18_t2t": _change("crossvit_18", patch_embed="t2t"),
}

# Not of the paper: for small pictures, to try things in minutes. Convolutions in the patch
# embedding, because little data shows it what a position is only slowly.
PRESETS["crossvit_digits"] = CrossViTConfig(
    BranchConfig(48, 12, 64, depth=1, num_heads=4, mlp_ratio=3),
    BranchConfig(48, 16, 96, depth=2, num_heads=4, mlp_ratio=3),
    num_stages=2,
    patch_embed="conv",
)


def presets():
    """The names of the presets, in the order of the paper's tables 1, 2, 6 and 7."""
    return list(PRESETS)


def preset_name(config):
    """The name of the preset that equals `config`, or None."""
    return next((name for name, preset in PRESETS.items() if preset == config), None)
