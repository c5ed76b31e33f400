"""The presets: the architectures of the paper's tables 1, 2, 6, 7 and 8 and of its section 4.3.

One more, `crossvit_digits`, is not in the paper.

A preset with published weights names their repository on the Hugging Face hub and the input size
that they were trained at, for each value of the `weights` argument.
"""

import dataclasses
from collections.abc import Callable, Mapping

from keras_crossvit.models.config import PRESETS, BranchConfig, CrossViTConfig, Preset
from keras_crossvit.weights import PublishedWeights


def register_preset(
    name: str, weights: Mapping[str, PublishedWeights] | None = None
) -> Callable[[CrossViTConfig], CrossViTConfig]:
    """Returns a function that registers a `CrossViTConfig` under `name` and returns it.

        register_preset("crossvit_mine")(dataclasses.replace(config, num_stages=4))

    The name is then a value of `CrossViTConfig.preset`, of `--model` and of a recipe's `model`.

    Args:
        name: The preset's name, and by default that of its models; without "/", which Keras
            forbids there.
        weights: Published weights, by the value of the `weights` argument that selects them.

    Raises:
        ValueError: If another configuration has that name, or Keras forbids it, or the object to
            register is not a configuration.
    """
    if isinstance(name, str) and "/" in name:
        raise ValueError(f"`name` must be without '/'. Received: name={name!r}")

    def enter(config: CrossViTConfig) -> CrossViTConfig:
        if not isinstance(config, CrossViTConfig):
            raise ValueError(f"A preset must be a CrossViTConfig. Received: {name} = {config!r}")
        PRESETS.register(name)(Preset(config, dict(weights or {})))
        return config

    return enter


def presets() -> list[str]:
    """The names of the presets: those of this package, then those registered since."""
    return list(PRESETS)


def preset_name(config: CrossViTConfig) -> str | None:
    """The name of the preset that equals `config`, or None."""
    return next((name for name, preset in PRESETS.items() if preset.config == config), None)


def published_weights() -> dict[str, dict[str, PublishedWeights]]:
    """All published weights: `{value of weights: {preset: PublishedWeights}}`."""
    published: dict[str, dict[str, PublishedWeights]] = {}
    for name, preset in PRESETS.items():
        for value, weights in preset.weights.items():
            published.setdefault(value, {})[name] = weights
    return published


def _row(patch_embed, patch, dim, heads, r, k=3, n=1, m=4, depth=1):
    """One row of table 1 or 7; `depth` is L.

    According to the paper the input has 224 pixels. In the released code, which produced the
    checkpoints, the small branch sees 240 pixels and the large branch 224. Patches of 8 pixels
    divide 224, and row A of table 7 has its 6.7 GFLOPs only if both branches see 224.
    """
    side = 224 if 224 % patch[0] == 0 else 240
    small = BranchConfig(side, patch[0], dim[0], depth=n, num_heads=heads, mlp_ratio=r)
    large = BranchConfig(224, patch[1], dim[1], depth=m, num_heads=heads, mlp_ratio=r)
    return CrossViTConfig(small, large, k, fusion_depth=depth, patch_embed=patch_embed)


def _change(name, **changes):
    """The configuration of the preset `name`, with changes."""
    return dataclasses.replace(PRESETS[name].config, **changes)


def _large_alone(name):
    """The DeiT baseline of a CrossViT: its large branch alone (table 2)."""
    return _change(name, small=None, fusion="none")


def _register(rows):
    for name, config in rows.items():
        register_preset(name)(config)


# Table 1, where K = 3, N = 1 and L = 1 for all. Each row ends with the input sizes, in pixels, of
# its published weights, which are timm's copies of the authors' weights.
_TABLE_1 = {
    #                  patch embedding, size,    dimension,  heads, r, M
    "crossvit_tiny": (_row("linear", (12, 16), (96, 192), 3, 4, m=4), (240,)),
    "crossvit_small": (_row("linear", (12, 16), (192, 384), 6, 4, m=4), (240,)),
    "crossvit_base": (_row("linear", (12, 16), (384, 768), 12, 4, m=4), (240,)),
    "crossvit_9": (_row("linear", (12, 16), (128, 256), 4, 3, m=3), (240,)),
    "crossvit_15": (_row("linear", (12, 16), (192, 384), 6, 3, m=5), (240,)),
    "crossvit_18": (_row("linear", (12, 16), (224, 448), 7, 3, m=6), (240,)),
    "crossvit_9_dagger": (_row("conv", (12, 16), (128, 256), 4, 3, m=3), (240,)),
    "crossvit_15_dagger": (_row("conv", (12, 16), (192, 384), 6, 3, m=5), (240, 408)),
    "crossvit_18_dagger": (_row("conv", (12, 16), (224, 448), 7, 3, m=6), (240, 408)),
}
for _name, (_config, _sides) in _TABLE_1.items():
    _weights = {
        "imagenet" if side == 240 else f"imagenet-{side}": PublishedWeights(
            f"timm/{_name}_{side}.in1k", side
        )
        for side in _sides
    }
    register_preset(_name, _weights)(_config)

# Tables 2 and 8: the large branch alone. The first three are the published DeiT models.
for _size in ("tiny", "small", "base"):
    _weights = {"imagenet": PublishedWeights(f"timm/deit_{_size}_patch16_224.fb_in1k", 224)}
    register_preset(f"deit_{_size}", _weights)(_large_alone(f"crossvit_{_size}"))
_register(
    {
        "deit_9": _large_alone("crossvit_9"),
        "deit_15": _large_alone("crossvit_15"),
        "deit_18": _large_alone("crossvit_18"),
        "deit_9_dagger": _large_alone("crossvit_9_dagger"),
        "deit_15_dagger": _large_alone("crossvit_15_dagger"),
        "deit_18_dagger": _large_alone("crossvit_18_dagger"),
    }
)

# Table 6. Its last row, cross-attention, is crossvit_small itself.
_register(
    {
        "crossvit_small_none": _change("crossvit_small", fusion="none"),
        "crossvit_small_all_attention": _change("crossvit_small", fusion="all_attention"),
        "crossvit_small_class_token": _change("crossvit_small", fusion="class_token"),
        "crossvit_small_pairwise": _change("crossvit_small", fusion="pairwise"),
    }
)

# Table 7: each row changes one property of CrossViT-S (row E changes K and M).
_register(
    {
        #                             patch size, dimension,            K,   N,   M,   L
        "crossvit_small_a": _row("linear", (8, 16), (192, 384), 6, 4, k=3, n=1, m=4, depth=1),
        "crossvit_small_b": _row("linear", (12, 16), (384, 384), 6, 4, k=3, n=1, m=4, depth=1),
        "crossvit_small_c": _row("linear", (12, 16), (192, 384), 6, 4, k=3, n=2, m=4, depth=1),
        "crossvit_small_d": _row("linear", (12, 16), (192, 384), 6, 4, k=3, n=1, m=4, depth=2),
        "crossvit_small_e": _row("linear", (12, 16), (192, 384), 6, 4, k=6, n=1, m=2, depth=1),
    }
)

# From the text of section 4.3.
_register(
    {
        "crossvit_small_no_class_token": _change("crossvit_small", class_token=False),
        "crossvit_18_t2t": _change("crossvit_18", patch_embed="t2t_transformer"),
    }
)

# Not in the paper: for small images and experiments of a few minutes. The patch embedding is
# convolutional because with a linear one the model learns slowly from so little data.
register_preset("crossvit_digits")(
    CrossViTConfig(
        BranchConfig(48, 12, 64, depth=1, num_heads=4, mlp_ratio=3),
        BranchConfig(48, 16, 96, depth=2, num_heads=4, mlp_ratio=3),
        num_stages=2,
        patch_embed="conv",
    )
)
