"""CrossViT, the dual-branch vision transformer, as a functional Keras model.

Paper: Chen, Fan, Panda, "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image
Classification", ICCV 2021. Published weights: the authors' and timm's, which are equal.

Where the paper and the released code differ, the code is followed, since it made the weights:
- the input is 240 x 240 and not 224 x 224; the large branch sees it at 224;
- logits are the mean of the two heads (the paper leaves open how they are joined);
- f and g, the projections between the branches, are layer norm, GELU and linear.

A model of the large branch alone is a DeiT, the baseline of tables 2 and 8. Paper: Touvron et
al., "Training data-efficient image transformers & distillation through attention", ICML 2021.
DeiT-Ti, -S and -B are the large branches of CrossViT-Ti, -S and -B, and DeiT-9, -15 and -18
(with and without dagger) those of CrossViT-9, -15 and -18, with one head and without
distillation.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_crossvit import weights as checkpoints
from keras_crossvit.common.checks import (
    check_bool,
    check_choice,
    check_labels,
    check_positive_int,
    check_rate,
    check_reading,
    plain,
)
from keras_crossvit.common.registry import PACKAGE
from keras_crossvit.models.assembly import Assembly
from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.models.frozen import freeze_again, frozen_layers
from keras_crossvit.models.inputs import make_images
from keras_crossvit.models.loops import Loops
from keras_crossvit.models.preprocessing import (
    check_normalization,
    imagenet_labels,
    normalize,
)
from keras_crossvit.models.presets import preset_name, published_weights
from keras_crossvit.models.quantization import (
    check_dtype,
    quantize_again,
    quantized_layers,
    quick_and_quiet,
)


@keras.saving.register_keras_serializable(PACKAGE)
class CrossViT(Loops):
    """The CrossViT of any configuration (figure 2), a functional `keras.Model`.

    A configuration without a small branch (`CrossViTConfig.preset("deit_small")`) gives the
    large branch alone, a DeiT; what is said below of two branches then holds for one, and
    a single tensor takes the place of a list of two.

    Args:
        config: A `CrossViTConfig`.
        include_top: Whether the model ends in the two classification heads.
        weights: `None` for the reference's initialisation; `"imagenet"` for the published
            checkpoint at 240 pixels (DeiT-Ti, -S and -B: at 224); `"imagenet-408"` for the
            one at 408 (15 and 18 dagger; the default input is then 408);
            `"hf://owner/name"` for a repository on the Hugging Face hub; or the path of a
            `.safetensors`, `.pth`, `.pt`, `.bin`, `.keras` or `.weights.h5` file. Position
            embeddings for another input size are resized, and patch embeddings for other
            channels summed or repeated by timm's rule (not those of a `.weights.h5`, whose
            weights have no names); an ImageNet head is left out, with a warning, if `classes` is
            not 1000.
        input_tensor: Keras tensor to build on, pixels `(B, H, W, channels)`.
        input_shape: `(H, W, channels)`, any size of at least one patch, square or not; any
            number of channels.
        pooling: What a model without a top returns. `None`: `[small_tokens, large_tokens]`,
            normalised, class token first; `"token"`: the two class tokens concatenated,
            `(B, C_small + C_large)`, only in a model that has them; `"avg"` or `"max"`: over
            the patch tokens, concatenated. Not used with a top.
        classes: Number of classes of the heads, positive.
        classifier_activation: Activation of the averaged logits; `None` returns the logits. The
            softmax of a single class would always be 1, so with `classes=1` "softmax" is a
            sigmoid.
        include_preprocessing: Whether the model normalises pixels in 0..255 itself.
            `False`: it expects images normalised by `mean` and `std`.
        drop_rate: Dropout before the heads, in [0, 1), as in timm.
        drop_path_rate: Drop path rate at the end of the last stage, in [0, 1); grows linearly
            from 0 at the first encoder, counted in the deeper branch and, as in the released
            code, with the fusion modules where a fusion has several.
        name: Name of the model; by default the preset's name, or "crossvit".
        gradient_checkpointing: Whether training keeps only the input of each transformer
            encoder and recomputes the rest: less memory, more time.
        mean: Mean of each channel, for pixels in 0..1; `None` for ImageNet's. A grey image,
            `input_shape=(H, W, 1)`, is then normalised as red, as green and as blue, and the
            model answers as one with three channels does to the same image; with one number
            each for `mean` and `std` it stays one channel. More than three channels repeat
            ImageNet's three.
        std: Standard deviation of each channel, likewise.
        inputs: "shared": both branches see one image. "separate": the model takes a list of
            two images of `input_shape`, the small branch's and the large branch's.
        reset_heads: Whether the heads in `weights` are left out whatever their classes, so that
            weights for any classes, or for none, can start a model for any others.
        labels: Names of the classes, in order. `None`: ImageNet's with its published weights and
            its 1,000 classes, those that a file of this package has for its heads, or otherwise
            none. They are saved with the model.
        dtype: Keras dtype policy of all layers, or its name; `None` for the global one.
            Whatever it is, images are normalised and resized, and logits averaged, in float32.

    Attributes:
        config: The `CrossViTConfig`.
        branches: `{"small": BranchLayers, "large": BranchLayers}`: the layers of each branch by
            role; without "small" in a model of one branch. The same goes for `grids`.
        grids: `{"small": (rows, columns), "large": (rows, columns)}` of patches.
        stages: The K `MultiScaleBlock`s, or the encoders of a model of one branch.
        images: `{"small": tensor, "large": tensor}`: Keras tensors of the images that the
            branches see, `(B, H, W, channels)`: the model's input or inputs, or the
            `input_tensor` twice.
        logits: Keras tensor of the averaged logits `(B, classes)`, before the activation;
            `None` without a top.
        labels: Names of the classes, a tuple, or `None`.
        reading: How images are read for the evaluation of the weights, `{"crop_ratio": ...,
            "exif_orientation": ...}`, as far as it is known: `from_pretrained` and training set
            it, and whatever is saved or copied of the model keeps it.
        heads_left_out: Whether the heads in `weights` were left out, and new ones made instead.
        feature_dim: Width of the features, `C_small + C_large`.
        mean: Mean of each channel that is normalised, for pixels in 0..1; likewise `std`.
        include_preprocessing: The argument; so are `include_top`, `pooling`, `classes`,
            `classifier_activation`, `drop_rate`, `drop_path_rate`, `gradient_checkpointing`.

    Call arguments:
        images: `(B, H, W, channels)`, channels last, pixels in 0..255; with
            `inputs="separate"` a list of two.

    Raises:
        ValueError: If an argument is not allowed, or the weights do not fit.
        ConnectionError: If published weights are neither cached nor reachable.
    """

    def __init__(
        self,
        config: CrossViTConfig,
        include_top: bool = True,
        weights: str | os.PathLike | None = "imagenet",
        input_tensor: Any = None,
        input_shape: tuple[int, int, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable | None = "softmax",
        include_preprocessing: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        name: str | None = None,
        *,
        gradient_checkpointing: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        inputs: str = "shared",
        reset_heads: bool = False,
        labels: Sequence[str] | None = None,
        dtype: Any = None,
    ) -> None:
        classes = plain(classes)
        _check_arguments(config, include_top, pooling, classes, classifier_activation)
        labels = None if labels is None else check_labels(labels, classes)
        include_top = check_bool("include_top", include_top)
        include_preprocessing = check_bool("include_preprocessing", include_preprocessing)
        gradient_checkpointing = check_bool("gradient_checkpointing", gradient_checkpointing)
        reset_heads = check_bool("reset_heads", reset_heads)
        drop_rate = check_rate("drop_rate", drop_rate)
        drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
        policy = check_dtype(dtype)
        source = checkpoints.resolve(weights, preset_name(config), published_weights())

        # Figure 2, from bottom to top: the image, its patches, K multi-scale blocks, the heads.
        images = make_images(config, source, input_tensor, input_shape, inputs)
        size, channels = images["large"].shape[1:3], images["large"].shape[3]
        as_rgb = channels == 1 and include_preprocessing
        mean, std = check_normalization(mean, std, channels, as_rgb)
        parts = Assembly(config, size, drop_path_rate, gradient_checkpointing, policy.name)
        pixels = normalize(images, mean, std) if include_preprocessing else images
        tokens = parts.encode(parts.embed(pixels))
        logits = None
        if include_top:
            features = parts.pool(tokens, "token" if config.class_token else "avg")
            logits = parts.classify(features, classes, drop_rate)
            outputs = _activate(logits, classifier_activation, classes)
        elif pooling is None:
            outputs = list(parts.norm(tokens).values())
            outputs = outputs if len(outputs) > 1 else outputs[0]
        else:
            join = keras.layers.Concatenate(name="features", dtype=policy.name)
            outputs = join(list(parts.pool(tokens, pooling).values()))

        given = list({id(image): image for image in images.values()}.values())
        given = given if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
        given = given[0] if len(given) == 1 else given  # Keras warns of a list of one
        super().__init__(
            inputs=given, outputs=outputs, name=name or preset_name(config) or "crossvit"
        )
        self.dtype_policy = policy
        self.config = config
        self.branches, self.stages, self.grids = parts.branches, parts.stages, parts.grids
        self.logits = logits
        self.feature_dim = sum(branch.embed_dim for branch in config.branches.values())
        self.include_top, self.pooling, self.classes = include_top, pooling, classes
        self.classifier_activation = classifier_activation
        self.include_preprocessing = include_preprocessing
        self.drop_rate, self.drop_path_rate = drop_rate, drop_path_rate
        self.gradient_checkpointing = gradient_checkpointing
        published = source is not None and source.input_size is not None
        if labels is None and published and include_top and classes == 1000 and not reset_heads:
            labels = imagenet_labels()
        self.labels = labels
        self.mean, self.std = mean, std
        self.images, self._built_on_tensor = images, input_tensor is not None
        self.reading: dict[str, Any] = {}
        self.heads_left_out = source is not None and source.load_into(self, reset_heads)

    @property
    def takes_pairs(self) -> bool:
        """Whether the model takes an image for each branch, `inputs="separate"`."""
        return len(set(map(id, self.images.values()))) > 1

    def get_config(self) -> dict:
        """The arguments, as JSON can hold them; weights are saved apart, so `weights` is None.

        `input_tensor` becomes the model from its sources up to that tensor. `frozen` holds the
        names of the layers that are not trained, and the paths of those inside others; `thawed`
        the paths of layers inside them that are trained.
        """
        stem = None
        if self._built_on_tensor:
            stem = keras.Model(self.inputs, self.images["large"], name="stem")
            stem = keras.saving.serialize_keras_object(stem)
        return {
            "config": dataclasses.asdict(self.config),
            "include_top": self.include_top,
            "weights": None,
            "input_tensor": stem,
            "input_shape": tuple(self.images["large"].shape[1:]),
            "pooling": self.pooling,
            "classes": self.classes,
            "classifier_activation": _serialize_activation(self.classifier_activation),
            "include_preprocessing": self.include_preprocessing,
            "drop_rate": self.drop_rate,
            "drop_path_rate": self.drop_path_rate,
            "name": self.name,
            "gradient_checkpointing": self.gradient_checkpointing,
            "labels": None if self.labels is None else check_labels(self.labels, self.classes),
            "mean": self.mean,
            "std": self.std,
            "inputs": "separate" if self.takes_pairs else "shared",
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "quantization": quantized_layers(self),
            **({"reading": check_reading(self.reading)} if self.reading else {}),
            "trainable": self.trainable,
            **frozen_layers(self),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "CrossViT":
        """The model whose `get_config` returned `config`, without its weights."""
        arguments = dict(config)
        trainable = arguments.pop("trainable")
        frozen, thawed = arguments.pop("frozen"), arguments.pop("thawed", ())
        quantization, reading = arguments.pop("quantization", None), arguments.pop("reading", {})
        arguments["config"] = CrossViTConfig.from_dict(arguments["config"])
        for flag in ("include_top", "include_preprocessing", "gradient_checkpointing"):
            arguments[flag] = bool(arguments[flag])  # older versions kept 1 as it was
        arguments["dtype"] = keras.dtype_policies.deserialize(arguments["dtype"])
        if arguments["input_tensor"] is not None:
            stem = keras.saving.deserialize_keras_object(
                arguments["input_tensor"], custom_objects=custom_objects
            )
            arguments["input_tensor"] = stem.output
        if isinstance(arguments["classifier_activation"], dict):  # a function of the user's
            arguments["classifier_activation"] = keras.activations.deserialize(
                arguments["classifier_activation"], custom_objects
            )
        model = cls(**arguments)
        model.reading = check_reading(reading)
        quantize_again(model, quantization)
        if not trainable:
            model.trainable = False
        freeze_again(model, frozen, thawed)
        return model

    def quantize(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.quantize`, in a hundredth of its time and without its warnings."""
        with quick_and_quiet():
            return super().quantize(*args, **kwargs)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        crop_ratio: float | None = None,
        details: Mapping[str, Any] | None = None,
        space: bool = False,
    ) -> None:
        """Writes a folder that describes its own contents, for `from_pretrained` and for timm.

        `model.safetensors` (timm's names); `config.json`, which `timm.create_model("local-dir:
        FOLDER", pretrained=True)` reads if timm can build the same model; `labels.txt`; and
        `README.md`, the model card, which says whether it can.

        Args:
            folder: The folder; created if needed. Other files in it stay, as do other keys of a
                `config.json`, and a `README.md` that is no such card.
            crop_ratio: Crop ratio of the evaluation that belongs to the weights; `None` for that
                of `reading`, or else the published one at that input size.
            details: Further rows of the model card, e.g. `{"data": "pets", "top-1": "93.1 %"}`.
            space: Whether the folder also becomes a Space of the Hugging Face hub, the page of
                `crossvit demo`, with `app.py`, `requirements.txt` and a Space's card.

        Raises:
            ValueError: If a weight has no name or shares it, `folder` is a file or a run's folder,
                or a model without a top is to become a Space.
        """
        from keras_crossvit.models.pretrained import save_pretrained

        save_pretrained(self, folder, crop_ratio=crop_ratio, details=details, space=space)

    def push_to_hub(
        self, name: str, *, private: bool = False, space: bool = False, **options: Any
    ) -> str:
        """Uploads to the Hugging Face hub what `save_pretrained` writes; needs a login there.

        Args:
            name: Repository, "owner/name"; created if needed.
            private: Whether a new repository is private.
            space: Whether the repository is a Space, as in `save_pretrained`.
            **options: Further arguments of `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            ValueError: If `name` has another form, or as from `save_pretrained`.
            ConnectionError: If the hub cannot be reached, or refuses.
        """
        from keras_crossvit.models.pretrained import push_to_hub

        return push_to_hub(self, name, private=private, space=space, **options)


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
        check_positive_int("classes", classes)
    try:
        if isinstance(classifier_activation, keras.layers.Layer):
            raise TypeError("a layer")  # whose configuration would be lost when saved
        keras.activations.get(classifier_activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`classifier_activation` must be the name of a Keras activation, a function or "
            f"None. Received: classifier_activation={classifier_activation!r}"
        ) from error


def _activate(logits, activation, classes):
    if activation is None:
        return logits
    if classes == 1 and keras.activations.get(activation) is keras.activations.softmax:
        activation = "sigmoid"
    return keras.layers.Activation(activation, dtype="float32", name="predictions")(logits)


def _serialize_activation(activation):
    return (
        None
        if activation is None
        else keras.activations.serialize(keras.activations.get(activation))
    )
