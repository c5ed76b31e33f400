"""CrossViT, the dual-branch vision transformer, as a functional Keras model.

Paper: Chen, Fan, Panda, "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image
Classification", ICCV 2021. Published weights: the authors' and, equal to them, timm's.

Where the paper and the released code differ, the code is followed, since it made the weights:
- the input is 240 x 240 and not 224 x 224; the large branch sees it at 224;
- logits are the mean of the two heads (the paper leaves open how they are joined);
- f and g, the projections between the branches, are layer norm, GELU and linear.
"""

import inspect

import keras
import numpy as np

from keras_crossvit import weights as checkpoints
from keras_crossvit.common.checks import check_choice, check_positive_int, check_rate
from keras_crossvit.layers import (
    PATCH_EMBEDS,
    BicubicResize,
    ClassToken,
    PositionEmbedding,
    TokenPool,
)
from keras_crossvit.layers.parts import dense, layer_norm
from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.models.encoders import encode
from keras_crossvit.models.model import Model
from keras_crossvit.models.preprocessing import normalization
from keras_crossvit.models.presets import preset_name


def CrossViT(
    config,
    include_top=True,
    weights="imagenet",
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    include_preprocessing=True,
    drop_rate=0.0,
    drop_path_rate=0.0,
    name=None,
    *,
    gradient_checkpointing=False,
):
    """Builds the CrossViT of any configuration (figure 2).

    A configuration without a small branch (`CrossViTConfig.preset("deit_small")`) gives the
    large branch alone, a DeiT; what is said of two branches below then holds for one, and
    a single tensor stands where there would be a list of two.

    Args:
        config: A `CrossViTConfig`.
        include_top: Whether the model ends in the two classification heads.
        weights: `None` for the reference's initialisation; `"imagenet"` for the published
            checkpoint at 240 pixels (DeiT-Ti, -S and -B: at 224); `"imagenet-408"` for the
            one at 408 (15 and 18 dagger; the default input is then 408);
            `"hf://owner/name"` for a repository on the Hugging Face hub; or the path of a
            `.safetensors`, `.pth`, `.weights.h5` or `.keras` file. Position embeddings of
            another input size are resized; an ImageNet head is left out, and this is said,
            if `classes` is not 1000.
        input_tensor: Keras tensor to build on, pixels `(B, H, W, 3)`.
        input_shape: `(H, W, 3)`, any size of at least one patch, square or not.
        pooling: What a model without a top returns. `None`: `[small_tokens, large_tokens]`,
            normalised, class token first; `"token"`: the two class tokens concatenated,
            `(B, C_small + C_large)`, not without class tokens; `"avg"` or `"max"`: over the
            patch tokens, concatenated. Not used with a top.
        classes: Number of classes of the heads, positive.
        classifier_activation: Activation of the averaged logits; `None` returns the logits.
        include_preprocessing: Whether the model normalises pixels in 0..255 itself.
            `False`: it expects images normalised by ImageNet's mean and deviation.
        drop_rate: Dropout before the heads, in [0, 1), as in timm.
        drop_path_rate: Stochastic depth of the last encoder, in [0, 1); grows linearly
            from 0 at the first.
        name: Name of the model; by default the preset's name, or "crossvit".
        gradient_checkpointing: Whether training keeps only the input of each transformer
            encoder and computes the rest again: less memory, more time.

    Returns:
        A functional `keras.Model`. Input: `(B, H, W, 3)`, channels last, pixels in 0..255.

    Raises:
        ValueError: If an argument is not allowed, or the weights do not fit.
        ConnectionError: If published weights are neither cached nor to be reached.
    """
    _check_arguments(config, include_top, pooling, classes, classifier_activation)
    check_rate("drop_rate", drop_rate)
    source = checkpoints.resolve(weights, preset_name(config))
    image = _image_input(config, source, input_tensor, input_shape, include_preprocessing)
    pixels = normalization("normalization")(image) if include_preprocessing else image

    sizes = config.branch_sizes(*image.shape[1:3])
    tokens = {branch: _embed(pixels, branch, config, size) for branch, size in sizes.items()}
    grids = config.grids(*image.shape[1:3])
    tokens = encode(tokens, config, grids, drop_path_rate, gradient_checkpointing)

    if include_top:
        pooling = "token" if config.class_token else "avg"
        features = [_pool(x, branch, pooling, config) for branch, x in tokens.items()]
        outputs = _classify(features, config, classes, classifier_activation, drop_rate)
    elif pooling is None:
        outputs = [_norm(x, branch) for branch, x in tokens.items()]
        outputs = outputs if len(outputs) > 1 else outputs[0]
    else:
        features = [_pool(x, branch, pooling, config) for branch, x in tokens.items()]
        outputs = keras.layers.Concatenate(name="features")(features)

    inputs = [image] if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    inputs = inputs[0] if len(inputs) == 1 else inputs  # Keras warns of a list of one
    model = Model(inputs, outputs, name=name or preset_name(config) or "crossvit")
    if source is not None:
        source.load_into(model)
    return model


def _check_arguments(config, include_top, pooling, classes, classifier_activation):
    if not isinstance(config, CrossViTConfig):
        raise ValueError(
            "`config` must be a CrossViTConfig, e.g. CrossViTConfig.preset(name). "
            f"Received: config={config!r}"
        )
    if pooling is not None:
        check_choice("pooling", pooling, {"token", "avg", "max"})
        if pooling == "token" and not config.class_token:
            raise ValueError(
                "`pooling` must be 'avg', 'max' or None for a model without class tokens. "
                f"Received: pooling={pooling!r}"
            )
    if include_top:
        if isinstance(classes, np.integer):
            classes = int(classes)
        check_positive_int("classes", classes)
    try:
        keras.activations.get(classifier_activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`classifier_activation` must be the name of a Keras activation, a function or "
            f"None. Received: classifier_activation={classifier_activation!r}"
        ) from error


def _image_input(config, source, input_tensor, input_shape, include_preprocessing):
    """The Keras tensor `(B, H, W, channels)` that the graph begins with."""
    if input_shape is not None:
        input_shape = tuple(input_shape) if np.iterable(input_shape) else (input_shape,)
    if input_tensor is not None:
        if not keras.utils.is_keras_tensor(input_tensor):
            raise ValueError(
                f"`input_tensor` must be a Keras tensor. Received: {type(input_tensor).__name__}"
            )
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and input_shape != shape:
            raise ValueError(
                f"`input_shape` must be that of `input_tensor`, {shape}, or None. "
                f"Received: input_shape={input_shape}"
            )
    elif input_shape is not None:
        shape = input_shape
    else:
        side = (source and source.input_size) or config.input_size
        shape = (side, side, 3)
    known = len(shape) == 3 and all(isinstance(n, (int, np.integer)) and n > 0 for n in shape)
    if not known:
        raise ValueError(
            "`input_shape` must be three positive integers `(height, width, 3)`: position "
            f"embeddings need a known size. Received: input_shape={input_shape or shape}"
        )
    if shape[2] != 3 and (include_preprocessing or source is not None):
        raise ValueError(
            "`input_shape` must have 3 channels, unless `weights=None` and "
            f"`include_preprocessing=False`. Received: input_shape={input_shape or shape}"
        )
    if input_tensor is not None:
        return input_tensor
    config.branch_sizes(*shape[:2])  # so that a size that is too small makes no graph
    return keras.Input(shape, name="images")


def _embed(pixels, branch, config, size):
    """From pixels to the tokens of one branch, equation 1, first line."""
    if tuple(pixels.shape[1:3]) != size:
        pixels = BicubicResize(*size, name=f"{branch}_resize")(pixels)
    branch_config = config.branches[branch]
    tokens = PATCH_EMBEDS[config.patch_embed](
        branch_config.patch_size, branch_config.embed_dim, name=f"{branch}_patch_embed"
    )(pixels)
    if config.class_token:
        tokens = ClassToken(name=f"{branch}_class_token")(tokens)
    return PositionEmbedding(name=f"{branch}_position_embedding")(tokens)


def _norm(x, branch):
    return layer_norm(f"{branch}_norm")(x)


def _pool(tokens, branch, mode, config):
    """A branch's tokens, normalised, as one vector `(B, C)`."""
    pool = TokenPool(mode, config.class_token, name=f"{branch}_pool")
    # Only the class token is used, so only the class token is normalised.
    return _norm(pool(tokens), branch) if mode == "token" else pool(_norm(tokens, branch))


def _classify(features, config, classes, activation, drop_rate):
    """The mean of the heads' logits, in float32 whatever the policy, and its activation."""
    logits = []
    for x, branch in zip(features, config.branches, strict=True):
        if drop_rate > 0:
            x = keras.layers.Dropout(drop_rate, name=f"{branch}_dropout")(x)
        logits.append(dense(classes, f"{branch}_head", dtype=None)(x))
    logits = keras.layers.Average(dtype="float32", name="logits")(logits)
    if activation is None:
        return logits
    return keras.layers.Activation(activation, dtype="float32", name="predictions")(logits)


def branch_logits(model):
    """The logits of each branch's own head (table 6, "single branch").

    Args:
        model: A CrossViT built with `include_top=True`, trained or not; it is not changed.

    Returns:
        A model with the input of `model`, the same weights, and the outputs
        `{"small": (B, classes), "large": (B, classes)}`.

    Raises:
        ValueError: If `model` has no two heads.
    """
    names = {layer.name for layer in model.layers}
    if not {"small_head", "large_head"} <= names:
        raise ValueError(
            "`model` must be a CrossViT with include_top=True. "
            f"Received: a model without the layers small_head and large_head, {model.name!r}"
        )
    heads = {branch: model.get_layer(f"{branch}_head").output for branch in ("small", "large")}
    return keras.Model(model.input, heads, name=f"{model.name}_branches")


def _constructor(preset, title):
    """The constructor of one row of table 1: `CrossViT` with its configuration filled in."""

    def build(*args, **kwargs):
        return CrossViT(CrossViTConfig.preset(preset), *args, **kwargs)

    signature = inspect.signature(CrossViT)
    arguments = [p for p in signature.parameters.values() if p.name != "config"]
    build.__signature__ = signature.replace(parameters=arguments)
    build.__name__ = build.__qualname__ = title
    build.__doc__ = (
        f"{title}, the preset {preset!r} (table 1). Arguments and result: `CrossViT`, "
        "without `config`."
    )
    return build


CrossViTTiny = _constructor("crossvit_tiny", "CrossViTTiny")
CrossViTSmall = _constructor("crossvit_small", "CrossViTSmall")
CrossViTBase = _constructor("crossvit_base", "CrossViTBase")
CrossViT9 = _constructor("crossvit_9", "CrossViT9")
CrossViT15 = _constructor("crossvit_15", "CrossViT15")
CrossViT18 = _constructor("crossvit_18", "CrossViT18")
CrossViT9Dagger = _constructor("crossvit_9_dagger", "CrossViT9Dagger")
CrossViT15Dagger = _constructor("crossvit_15_dagger", "CrossViT15Dagger")
CrossViT18Dagger = _constructor("crossvit_18_dagger", "CrossViT18Dagger")
