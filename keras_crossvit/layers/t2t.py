"""Tokens-to-token patch embedding (section 4.3, "Cooperation with concurrent works").

Paper: Yuan et al., "Tokens-to-Token ViT: Training Vision Transformers from Scratch on
ImageNet", ICCV 2021, section 3.1. CrossViT's paper says only that "the T2T module" replaces
the linear patch embedding of both branches. Its released code lacks the module, but shows that
`hybrid_backbone="t2t"` is the one with the token transformer, not with Performer's attention.
Everything else here is as in T2T-ViT's code.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.checks import check_choice, check_not_negative_int, check_positive_int
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers import kernels
from keras_crossvit.layers.parts import apply_dense, dense, dense_macs, layer_norm, track
from keras_crossvit.layers.patch_embed import (
    STRIDE_AND_PADDING,
    BasePatchEmbed,
    register_patch_embed,
)
from keras_crossvit.layers.sizes import of_size
from keras_crossvit.layers.transformer_block import Mlp

TOKEN_DIM = 64  # width of the tokens inside the module, as in T2T-ViT


@keras.saving.register_keras_serializable(package="keras_crossvit")
class SoftSplit(keras.layers.Layer):
    """Soft split: overlapping windows of a feature map, each flattened to a vector (unfold).

    Args:
        kernel_size: Side of the windows, positive.
        stride: Distance from one window to the next, positive.
        padding: Number of zeros added on each side of the map, not negative.

    Call arguments:
        x: `(B, H, W, C)`, with known H and W.

    Returns:
        `(B, rows, columns, kernel_size * kernel_size * C)`, where
        `rows = (H + 2 * padding - kernel_size) // stride + 1`, and likewise for columns. The
        values of a window are in the order row, column, channel (PyTorch's `Unfold` has
        channel, row, column).

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size = check_positive_int("kernel_size", kernel_size)
        self.stride = check_positive_int("stride", stride)
        self.padding = check_not_negative_int("padding", padding)

    def call(self, x: Tensor) -> Tensor:
        pad = (self.padding, self.padding)
        x = ops.pad(x, ((0, 0), pad, pad, (0, 0)))
        # One axis at a time: 2 k strided slices instead of k * k.
        last = self.stride * (self._windows(x.shape[2]) - 1) + 1
        columns = [x[:, :, i : i + last : self.stride] for i in range(self.kernel_size)]
        x = ops.concatenate(columns, axis=-1)
        last = self.stride * (self._windows(x.shape[1]) - 1) + 1
        rows = [x[:, i : i + last : self.stride] for i in range(self.kernel_size)]
        return ops.concatenate(rows, axis=-1)

    def _windows(self, padded_side):
        return (padded_side - self.kernel_size) // self.stride + 1

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        rows, columns = (self._windows(side + 2 * self.padding) for side in (height, width))
        return (batch, rows, columns, self.kernel_size**2 * channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
        }


class TokenMixer(keras.layers.Layer):
    """What the two token transformers of T2T-ViT have in common: all but the attention.

    Normalisation and single-head attention, then normalisation and an MLP whose hidden layer is
    as wide as the tokens. The residual connection around the attention starts from the values,
    since the width changes. T2T-ViT's dropout of 0.1 in the Performer is omitted, because
    CrossViT is trained with drop path only. Arguments and shapes are those of `TokenTransformer`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check_positive_int("units", units)

    def build(self, input_shape: Shape) -> None:
        self.norm1 = layer_norm("norm1", self.dtype_policy)
        self.norm1.build(input_shape)
        self.build_attention(input_shape)
        self.proj = dense(self.units, "proj", self.dtype_policy)
        self.norm2 = layer_norm("norm2", self.dtype_policy)
        self.mlp = Mlp(1.0, dtype=self.dtype_policy, name="mlp")
        for layer in (self.proj, self.norm2, self.mlp):
            layer.build((*input_shape[:-1], self.units))

    def build_attention(self, input_shape: Shape) -> None:
        """Makes and builds the layers that `mix` needs."""
        raise NotImplementedError

    def mix(self, tokens: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """The values of normalised tokens and their weighted means, each `(B, N, units)`."""
        raise NotImplementedError

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        values, means = self.mix(self.norm1(tokens), training)
        tokens = values + apply_dense(self.proj, means, training)
        return tokens + self.mlp(self.norm2(tokens))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample, without those of the attention itself."""
        _, length, width = input_shape
        products = dense_macs(length, width, 3 * self.units)
        return products + dense_macs(length, self.units, self.units, self.units, self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_crossvit")
class TokenTransformer(TokenMixer):
    """The token transformer of T2T-ViT, with softmax attention of a single head.

    As in T2T-ViT, the scores are divided by the square root of the width of the input, not of
    the queries, and the projection to queries, keys and values has no bias. A branch that sees
    240 pixels has 3,600 tokens here, so its attention map has 13 million entries.

    Args:
        units: Width of the output, positive.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        `(B, N, units)`.

    Raises:
        ValueError: If `units` is not a positive integer.
    """

    def build_attention(self, input_shape: Shape) -> None:
        self.qkv = dense(3 * self.units, "qkv", self.dtype_policy, use_bias=False)
        self.qkv.build(input_shape)
        # The kernel divides by the square root of `units`.
        scale = math.sqrt(self.units / input_shape[-1])
        self.scales = np.repeat([scale, 1.0, 1.0], self.units).astype("float32")

    def mix(self, tokens: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        qkv = apply_dense(self.qkv, tokens, training)
        means = kernels.attention(qkv * ops.cast(self.scales, qkv.dtype), 1, training)
        return qkv[..., 2 * self.units :], means

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample: dense layers, scores and weighted sums."""
        return super().macs(input_shape) + 2 * input_shape[1] ** 2 * self.units


@keras.saving.register_keras_serializable(package="keras_crossvit")
class TokenPerformer(TokenMixer):
    """The token transformer of T2T-ViT with Performer's attention, in time linear in N.

    Single-head softmax attention is estimated with m positive random features
    `phi(x) = exp(w x - |x|^2 / 2)` (Choromanski et al., "Rethinking Attention with Performers",
    ICLR 2021). As in T2T-ViT, the scores are not scaled, and `w` has the length sqrt(m) instead
    of the square root of `units` that normally distributed features would have. For half as
    many features as units, this comes close to the softmax of half the scores.

    The maximum is subtracted before each exponential, which cancels in the quotient. The
    attention is computed in float32 under any dtype policy.

    Args:
        units: Width of the output, positive.
        num_features: Number of random features m, positive; `None` for half of `units`, as in
            T2T-ViT.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        `(B, N, units)`.

    Raises:
        ValueError: If an argument is not a positive integer.
    """

    def __init__(self, units: int, num_features: int | None = None, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        if num_features is not None:
            check_positive_int("num_features", num_features)
        self.num_features = num_features

    def build_attention(self, input_shape: Shape) -> None:
        self.kqv = dense(3 * self.units, "kqv", self.dtype_policy)
        self.kqv.build(input_shape)
        features = self._features()
        self.random_features = self.add_weight(
            shape=(self.units, features),
            initializer=keras.initializers.Orthogonal(gain=math.sqrt(features)),
            trainable=False,
            autocast=False,
            dtype="float32",  # in bfloat16 no orthogonal matrix can be drawn
            name="random_features",
        )

    def _features(self):
        return self.num_features or max(1, self.units // 2)

    def mix(self, tokens: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        kqv = apply_dense(self.kqv, tokens, training)
        keys, queries, values = ops.split(kqv, 3, axis=-1)
        return values, ops.cast(self.attend(queries, keys, values), self.compute_dtype)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The weighted means of the values, by random features: float32 `(B, N, units)`."""
        features = ops.cast(self.random_features, "float32")
        queries, keys, values = (ops.cast(x, "float32") for x in (queries, keys, values))
        # |q|^2 / 2 is the same for all features of a query, so it cancels.
        queries = _exp_below_one(ops.matmul(queries, features), axis=-1)
        norms = 0.5 * ops.sum(ops.square(keys), axis=-1, keepdims=True)
        keys = _exp_below_one(ops.matmul(keys, features) - norms, axis=(1, 2))
        sums = ops.sum(keys, axis=1)  # (B, m)
        products = ops.matmul(ops.transpose(keys, (0, 2, 1)), values)  # (B, m, units)
        totals = ops.matmul(queries, ops.expand_dims(sums, -1))  # (B, N, 1)
        return ops.matmul(queries, products) / (totals + keras.config.epsilon() ** 2)

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample: dense layers, features and attention."""
        # Features of queries and keys; keys times values; queries times that, and the sums.
        attention = input_shape[1] * self._features() * (4 * self.units + 1)
        return super().macs(input_shape) + attention

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_features": self.num_features}


def _exp_below_one(x, axis):
    return ops.exp(x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True)))


@register_patch_embed("t2t")
class T2TPatchEmbed(BasePatchEmbed):
    """Patch embedding by the tokens-to-token module with Performers, T2T-ViT's default.

    Three soft splits, a token transformer after each of the first two, and a dense layer to
    the width of the branch. The first split has windows of 7 x 7 pixels, stride 4 and padding
    2; the other two have windows of 3 x 3. For patches of 16 pixels both have stride 2 and
    padding 1, as in T2T-ViT. T2T-ViT has no patches of 12 pixels, and the paper does not say
    how it makes them: here the second split has stride 3 and no padding, and the third
    stride 1 and padding 1, like the convolutions of the dagger models.

    Args:
        patch_size: 12 or 16, in pixels.
        embed_dim: Width C of the tokens, positive.

    Call arguments:
        images: `(B, H, W, channels)`, where H and W are known multiples of `patch_size`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        Patch tokens `(B, N, C)` in row-major order, `N = (H / patch_size) * (W / patch_size)`.

    Raises:
        ValueError: If an argument is not allowed, or the height or width of the image
            is not a multiple of the patch size.
    """

    token_mixer: type[TokenMixer] = TokenPerformer

    def __init__(self, patch_size: int, embed_dim: int, **kwargs: Any) -> None:
        check_choice("patch_size", patch_size, STRIDE_AND_PADDING)
        super().__init__(patch_size, embed_dim, **kwargs)
        dtype = self.dtype_policy
        splits = ((7, 4, 2), *((3, *step) for step in STRIDE_AND_PADDING[patch_size]))
        self.splits = [
            SoftSplit(*split, dtype=dtype, name=f"split{i}") for i, split in enumerate(splits)
        ]
        self.attentions = [
            self.token_mixer(TOKEN_DIM, dtype=dtype, name=f"attention{i}") for i in (1, 2)
        ]
        track(self, self.attentions)
        self.project = dense(self.embed_dim, "project", dtype)

    def build(self, input_shape: Shape) -> None:
        self.grid = self.check_grid(input_shape)
        self._built_for = tuple(input_shape[1:])
        *before, last = self._token_shapes(input_shape)
        for layer, shape in zip([*self.attentions, self.project], [*before, last], strict=True):
            layer.build(shape)
        for split in self.splits:  # have no variables, but `model.quantize` wants them built
            split.build(None)

    def _token_shapes(self, shape):
        """The shape of the tokens after each split, `(B, N, C)`."""
        tokens = []
        for split in self.splits:
            batch, rows, columns, width = split.compute_output_shape(shape)
            tokens.append((batch, rows * columns, width))
            shape = (batch, rows, columns, TOKEN_DIM)
        return tokens

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        x = self.splits[0](of_size(images, self._built_for))
        for split, attention in zip(self.splits[1:], self.attentions, strict=True):
            _, rows, columns, width = x.shape
            tokens = attention(ops.reshape(x, (-1, rows * columns, width)))
            x = split(ops.reshape(tokens, (-1, rows, columns, TOKEN_DIM)))
        _, rows, columns, width = x.shape
        tokens = ops.reshape(x, (-1, rows * columns, width))
        return apply_dense(self.project, tokens, training)

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one image."""
        *before, (_, length, width) = self._token_shapes(input_shape)
        attention = sum(a.macs(s) for a, s in zip(self.attentions, before, strict=True))
        return attention + dense_macs(length, width, self.embed_dim)


@register_patch_embed("t2t_transformer")
class T2TTransformerPatchEmbed(T2TPatchEmbed):
    """The same with token transformers, as `crossvit_18_t2t` and T2T-ViT_t have it.

    The released code calls this form `t2t`. Arguments, call arguments and errors are those of
    `T2TPatchEmbed`.
    """

    token_mixer = TokenTransformer
