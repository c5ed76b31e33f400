"""Models that version 0.1 saved: `.keras` files that describe the model as a list of layers.

Later versions save the arguments of `CrossViT` instead. For the older files, this module derives
these arguments from the configurations of the layers.
"""

import dataclasses
from typing import Any

import keras

from keras_crossvit.common.registry import PACKAGE
from keras_crossvit.layers import PATCH_EMBEDS
from keras_crossvit.models.config import PRESETS, BranchConfig, CrossViTConfig
from keras_crossvit.models.crossvit import CrossViT


class ModelOfVersion01:
    """Takes the place of the class under which version 0.1 saved models."""

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        """The `CrossViT` with the layers of `config`.

        A model that was built on an `input_tensor` has other layers before its own. It becomes
        a functional `keras.Model`, as it was.

        Raises:
            ValueError: If no `CrossViTConfig` has these layers.
        """
        layers = {layer["name"]: layer for layer in config["layers"]}
        if [name for name, x in layers.items() if x["class_name"] == "InputLayer"] != ["images"]:
            return keras.Model.from_config(config, custom_objects)
        arguments = _arguments({name: layer["config"] for name, layer in layers.items()})
        arguments["config"] = _architecture(layers, arguments["input_shape"])
        model = CrossViT(weights=None, name=config["name"], **arguments)
        for layer in model.layers:
            if not layers[layer.name]["config"].get("trainable", True):
                layer.trainable = False
        return model


# Not with Keras' decorator, which requires a `get_config`: nothing is saved as this class.
keras.saving.get_custom_objects()[f"{PACKAGE}>Model"] = ModelOfVersion01


def _arguments(configs):
    """The arguments of `CrossViT`, except for the configuration of the architecture."""
    top = "logits" in configs
    encoder = configs.get("stage_0") or configs["large_block_0"]
    last = configs[[name for name in configs if name.startswith(("stage_", "large_block_"))][-1]]
    rates = last.get("drop_path_rates") or [last["drop_path_rate"]]
    arguments = {
        "include_top": top,
        "input_shape": tuple(configs["images"]["batch_shape"][1:]),
        "pooling": None if top or "features" not in configs else configs["large_pool"]["mode"],
        "include_preprocessing": "normalization" in configs,
        "drop_rate": configs["large_dropout"]["rate"] if "large_dropout" in configs else 0.0,
        "drop_path_rate": rates[-1],
        "gradient_checkpointing": encoder["gradient_checkpointing"],
        "dtype": keras.dtype_policies.deserialize(encoder["dtype"]),
    }
    if top:
        arguments["classes"] = configs["large_head"]["units"]
        activation = configs["predictions"]["activation"] if "predictions" in configs else None
        arguments["classifier_activation"] = activation and keras.activations.deserialize(
            activation
        )
    return arguments


def _architecture(layers, input_shape):
    """The `CrossViTConfig` that has these layers."""
    configs = {name: layer["config"] for name, layer in layers.items()}
    sizes = {}
    for branch in ("small", "large"):
        if f"{branch}_patch_embed" in configs:
            resize = configs.get(f"{branch}_resize")
            sizes[branch] = (resize["height"], resize["width"]) if resize else input_shape[:2]
    # The layers do not show the image sizes of the configuration, only the branches' sizes for
    # this input. Take the image sizes of the preset with the same layers, or else those that
    # give these sizes.
    guesses = [{x: side[axis] for x, side in sizes.items()} for axis in (0, 1)]
    guesses = [_with_sizes(layers, configs, guess) for guess in guesses]
    presets = [preset.config for preset in PRESETS.values()]
    same = [x for x in presets if _without_sizes(x) == _without_sizes(guesses[0])]
    for config in (*same, *guesses):
        if config.branch_sizes(*input_shape[:2]) == sizes:
            return config
    raise ValueError(
        "A model of version 0.1 must have the sizes that some CrossViTConfig gives. "
        f"Received: branches of sizes {sizes} for an input of {input_shape}"
    )


def _with_sizes(layers, configs, image_sizes):
    """The configuration with these image sizes of the branches."""
    stages = [configs[name] for name in configs if name.startswith("stage_")]
    blocks = [configs[name] for name in configs if name.startswith("large_block_")]
    branches = {}
    for branch, image_size in image_sizes.items():
        embed = configs[f"{branch}_patch_embed"]
        first = stages[0] if stages else blocks[0]
        role = f"{branch}_" if stages else ""
        branches[branch] = BranchConfig(
            image_size,
            embed["patch_size"],
            embed["embed_dim"],
            depth=first[f"{branch}_depth"] if stages else 1,
            num_heads=first[f"{role}num_heads"],
            mlp_ratio=first[f"{role}mlp_ratio"],
        )
    embed_class = layers["large_patch_embed"]["class_name"]
    return CrossViTConfig(
        branches.get("small"),
        branches["large"],
        len(stages) or len(blocks),
        fusion=stages[0]["fusion"] if stages else "none",
        fusion_depth=stages[0]["fusion_depth"] if stages else 1,
        patch_embed=next(x for x, cls in PATCH_EMBEDS.items() if cls.__name__ == embed_class),
        class_token="large_class_token" in configs,
    )


def _without_sizes(config):
    """The part of a configuration that its layers determine.

    For a model of one branch, the total number of encoders, not its division into stages.
    """
    if config.small is None:
        encoders = config.num_stages * config.large.depth
        large = dataclasses.replace(config.large, depth=1)
        config = dataclasses.replace(config, large=large, num_stages=encoders)
    branches = {
        name: dataclasses.replace(branch, image_size=branch.patch_size)
        for name, branch in config.branches.items()
    }
    return dataclasses.replace(config, **branches)
