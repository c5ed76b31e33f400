"""The part of a folder's `config.json` that timm reads, and what timm's own says.

timm resizes the image to its sides times a fixed scale, one for each branch, rounded down, and
drops what is left beyond the last patch; a model of this package resizes to whole patches.
`img_scale` among the `model_args` makes timm's branches see what ours do.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.models.preprocessing import imagenet_labels
from keras_crossvit.models.presets import preset_name, published_weights

if TYPE_CHECKING:
    from keras_crossvit.models.crossvit import CrossViT

Size: TypeAlias = tuple[int, int]  # rows and columns, of pixels or patches

# Arguments of timm's models that leave the architecture, or what it computes, as it is.
_KNOWN_ARGUMENTS = {
    *("num_classes", "in_chans", "img_size", "img_scale", "global_pool", "fc_norm"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("drop_path_rate", "weight_init", "strict_img_size", "dynamic_img_size"),
}


def timm_config(model: "CrossViT", classes: int, crop_ratio: float) -> dict[str, Any]:
    """The keys that timm's `local-dir:` and `hf-hub:` read.

    Args:
        model: The model.
        classes: Number of classes of its heads; 0 for a model without heads.
        crop_ratio: Crop ratio of the evaluation that belongs to the weights.
    """
    height, width, channels = model.images["large"].shape[1:]
    first = [f"patch_embed.{n}.proj" for n in range(len(model.branches))]
    first = [f"{name}.0" if model.config.patch_embed == "conv" else name for name in first]
    architecture, model_args = _architecture(model, (height, width))
    known = {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": model.feature_dim,
        "pretrained_cfg": {
            "input_size": [channels if len(model.mean) == channels else 3, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": crop_ratio,
            "mean": list(model.mean),
            "std": list(model.std),
            "num_classes": classes,
            "first_conv": first if len(first) > 1 else "patch_embed.proj",
            "classifier": ["head.0", "head.1"] if len(first) > 1 else "head",
        },
        "model_args": model_args,
    }
    return known if model.labels is None else {**known, "label_names": list(model.labels)}


def arguments_of_timm(found: dict[str, Any], origin: str) -> dict[str, Any]:
    """The arguments of `CrossViT` for a config.json that timm wrote.

    Raises:
        ValueError: If no model here is the same: the architecture is not published, is changed, or
            classifies by the average of its tokens; or if the size of the images is missing.
    """
    names = {name: preset for name, (preset, _) in _published().items()}
    architecture = found["architecture"]
    if architecture not in names:
        raise ValueError(
            f"`source` must be of one of timm's architectures {', '.join(names)}. "
            f"Received: {origin}, of {architecture!r}"
        )
    changed = found.get("model_args") or {}
    unknown = changed.keys() - _KNOWN_ARGUMENTS
    if unknown:
        raise ValueError(
            "`source` must be of timm's architecture as it is. "
            f"Received: {origin}, of {architecture} with {', '.join(sorted(unknown))}"
        )
    cfg = {**found, **(found.get("pretrained_cfg") or {})}
    classes = found.get("num_classes", cfg.get("num_classes", 1000))
    pooling = changed.get("global_pool", found.get("global_pool", "token"))
    if classes > 0 and pooling != "token":
        raise ValueError(
            "`source` must classify by its class tokens, global_pool='token'. "
            f"Received: {origin}, with global_pool={pooling!r}"
        )
    if "input_size" not in cfg:
        raise ValueError(
            "`source` must say the size of its images, input_size in config.json. "
            f"Received: {origin}, without it"
        )
    channels, *sides = cfg["input_size"]
    channels, sides = changed.get("in_chans", channels), changed.get("img_size", sides)
    height, width = (sides, sides) if isinstance(sides, int) else sides
    mean, std = (_for_channels(cfg.get(name), channels) for name in ("mean", "std"))
    labels = found.get("label_names") or cfg.get("label_names")
    return {
        "config": CrossViTConfig.preset(names[architecture]),
        "input_shape": (height, width, channels),
        "include_top": classes > 0,
        # Without heads timm returns one vector, or all tokens with the pooling "".
        "pooling": (pooling or None) if classes == 0 else None,
        "classes": classes or 1000,
        "mean": mean,
        "std": std,
        "labels": _labels(labels, classes, str(cfg.get("tag"))),
    }


def sizes_of_timm(found: dict[str, Any], config: CrossViTConfig, size: Size) -> dict[str, Size]:
    """The sizes at which timm's branches see an image of `size`, by timm's config.json, in pixels.

    Whole patches and, where timm does not resize to them, a remainder that it drops.
    """
    if config.small is None:
        return {"large": size}
    scales = (found.get("model_args") or {}).get("img_scale")
    if isinstance(scales, (int, float)):
        scales = [scales] * len(config.branches)
    return _scaled(config, size, scales or _scales(config, _published()[found["architecture"]][1]))


def _labels(names, classes, tag):
    """The names of the classes, which timm leaves out where they are ImageNet's.

    Only the tag tells, which a model that was trained on 1,000 other classes may have kept.
    """
    if not names and classes == 1000 and tag.rpartition("_")[2] == "in1k":
        return imagenet_labels()
    if isinstance(names, dict):  # {"0": name}
        names = [names.get(str(number)) for number in range(classes)]
    good = isinstance(names, list) and len(names) == classes and None not in names
    return names if good else None


def _for_channels(values, channels):
    """The mean or deviation of a config.json, which may be those of the weights it began with."""
    if values is None or len(values) == channels:
        return values
    return [sum(values) / len(values)] * channels  # as timm does


def is_of_timm(architecture: str) -> bool:
    """Whether timm has an architecture of this name."""
    return architecture in _published()


def _published():
    """`{timm's name: (preset, side of the images)}` of the architectures that timm has."""
    return {
        weights.timm_name: (preset, weights.input_size)
        for presets in published_weights().values()
        for preset, weights in presets.items()
    }


def _scales(config, input_size):
    """The scale of each branch in timm's architecture for images of `input_size` pixels."""
    sizes = config.branch_sizes(input_size, input_size)
    return [height / input_size for height, _ in sizes.values()]


def _scaled(config, size, scales):
    """The sizes that timm's branches see, as `CrossViTConfig.branch_sizes` returns ours."""
    return {
        branch: (int(size[0] * scale), int(size[1] * scale))
        for branch, scale in zip(config.branches, scales, strict=True)
    }


def _architecture(model, size):
    """Timm's name for the architecture, and the arguments that make it the same model.

    A model that timm cannot build gets the name of its preset, or "crossvit", which timm refuses.
    """
    preset = preset_name(model.config)
    sides = {side: name for name, (known, side) in _published().items() if known == preset}
    if sides:
        nearest = min(sides, key=lambda side: abs(side - size[0]))
        scales, pooling = _scale_arguments(model, size, nearest), _pooling_arguments(model)
        if scales is not None and pooling is not None and not model.takes_pairs:
            return sides[nearest], {**scales, **pooling}
    return preset or "crossvit", {}


def _scale_arguments(model, size, input_size):
    """What makes timm's branches see the sizes that ours do; `None` if nothing does."""
    config, wanted = model.config, model.config.branch_sizes(*size)
    if config.small is None:
        return {} if wanted["large"] == size else None
    if _scaled(config, size, _scales(config, input_size)) == wanted:
        return {}
    scales = []
    for sides in wanted.values():
        # The middle of all the scales that round down to these sides.
        lowest = max(wanted / given for wanted, given in zip(sides, size, strict=True))
        highest = min((wanted + 1) / given for wanted, given in zip(sides, size, strict=True))
        scales.append((lowest + highest) / 2)
    return {"img_scale": scales} if _scaled(config, size, scales) == wanted else None


def _pooling_arguments(model):
    """What makes timm return the features that the model does; `None` if nothing does."""
    if model.include_top or model.pooling in (None, "token"):
        return {}
    if model.config.small is None:  # otherwise timm would normalise what is pooled
        return {"global_pool": model.pooling, "fc_norm": False}
    return {"global_pool": "avg"} if model.pooling == "avg" else None
