"""A feature pyramid for detectors, made from a model's last tokens."""

import math

import keras

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.layers import BicubicResize, gelu
from keras_crossvit.layers.intermediates import PatchMap
from keras_crossvit.layers.parts import layer_norm
from keras_crossvit.models.crossvit import CrossViT
from keras_crossvit.models.features import check_crossvit

_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}

_LAST = "channels_last"  # the maps, whatever the global setting is


def feature_pyramid(model: CrossViT, channels: int = 256) -> keras.Model:
    """A pyramid of feature maps at strides 4, 8, 16 and 32, made from both branches.

    It is the simple feature pyramid of ViTDet (Li, Mao, Girshick and He, "Exploring Plain Vision
    Transformer Backbones for Object Detection", ECCV 2022, section 3): every level is made from
    the last map alone, by deconvolutions of stride 2 (two for p2, one for p3), nothing (p4) or
    max pooling of stride 2 (p5); then a 1 x 1 and a 3 x 3 convolution to `channels`, each
    without a bias and followed by layer normalisation. Deconvolutions halve the width.

    ViTDet has one map, of stride 16. Here each branch goes through deconvolution or pooling and
    the 1 x 1 convolution, and is then resized (bicubic) from its own grid, whose stride is near
    12 or 16, to that of the level; the 3 x 3 convolution is applied to the sum of the branches.
    The maps are the tokens after the last stage, not normalised, as in ViTDet.

    The strides are those of the model's input: p2 is `ceil(H / 4)` high. Where H or W is not a
    multiple of 32, the cells of a level share the image equally, so its stride is a little
    smaller; `input_shape=(256, 320, 3)` gives exact ones.

    Args:
        model: A CrossViT with any fusion, or a model of one branch, trained or not. Its layers
            are shared and stay as they are; those of the pyramid are new and to be trained.
        channels: Channels of each level, positive.

    Returns:
        A functional model with the input of `model` and the outputs
        `{"p2": (B, rows, columns, channels), "p3": ..., "p4": ..., "p5": ...}`.

    Raises:
        ValueError: If `model` is not a CrossViT, or `channels` is not a positive integer.
    """
    check_crossvit(model)
    check_positive_int("channels", channels)
    make = _Levels(model, channels)
    tokens = keras.tree.flatten(model.stages[-1].output)
    maps = {
        branch: make.map_of(branch, x) for branch, x in zip(model.branches, tokens, strict=True)
    }
    levels = {level: make.level(level, maps) for level in _STRIDES}
    return keras.Model(model.input, levels, name=f"{model.name}_pyramid")


class _Levels:
    """Makes the layers of a pyramid, each with the tensors that go through it."""

    def __init__(self, model: CrossViT, channels: int) -> None:
        self.model, self.channels = model, channels
        self.dtype = model.dtype_policy.name
        self.size = model.images["large"].shape[1:3]

    def map_of(self, branch, tokens):
        """The tokens of a branch as a map `(B, rows, columns, C)`."""
        grid, class_token = self.model.grids[branch], self.model.config.class_token
        return PatchMap(*grid, class_token, dtype=self.dtype, name=f"{branch}_map")(tokens)

    def level(self, level, maps):
        """A level `(B, rows, columns, channels)` from the maps of the branches."""
        grid = [math.ceil(side / _STRIDES[level]) for side in self.size]
        branches = []
        for branch, x in maps.items():
            name = f"{branch}_{level}"
            x = self._conv(self._scale(x, level, name), 1, name)
            branches.append(BicubicResize(*grid, dtype=self.dtype, name=f"{name}_resize")(x))
        x = branches[0]
        if len(branches) > 1:
            x = keras.layers.Add(dtype=self.dtype, name=f"{level}_sum")(branches)
        return self._conv(x, 3, level)

    def _scale(self, x, level, name):
        """Brings a map of stride about 16 near the stride of the level."""
        if level == "p5":
            pool = keras.layers.MaxPooling2D(
                2, padding="same", data_format=_LAST, dtype=self.dtype, name=f"{name}_pool"
            )
            return pool(x)
        if level == "p4":
            return x
        x = self._deconv(x, f"{name}_deconv_0")
        if level == "p3":
            return x
        x = layer_norm(f"{name}_deconv_norm", self.dtype)(x)
        x = keras.layers.Activation(gelu, dtype=self.dtype, name=f"{name}_gelu")(x)
        return self._deconv(x, f"{name}_deconv_1")

    def _deconv(self, x, name):
        """Twice the rows and columns, half the channels."""
        deconv = keras.layers.Conv2DTranspose(
            max(1, x.shape[-1] // 2),
            2,
            strides=2,
            data_format=_LAST,
            dtype=self.dtype,
            name=name,
        )
        return deconv(x)

    def _conv(self, x, size, name):
        conv = keras.layers.Conv2D(
            self.channels,
            size,
            padding="same",
            data_format=_LAST,
            use_bias=False,
            dtype=self.dtype,
            name=f"{name}_conv",
        )
        return layer_norm(f"{name}_norm", self.dtype)(conv(x))
