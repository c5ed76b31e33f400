"""Patch embeddings: from an image to patch tokens."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_choice, check_positive_int
from keras_crossvit.common.registry import Registry
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.parts import apply_conv, track, uniform_init
from keras_crossvit.layers.sizes import of_size

# Patch size -> (stride, padding) of the second and the third convolution of the dagger models,
# both 3 x 3; the first is 7 x 7 with stride 4 (released code).
STRIDE_AND_PADDING = {12: ((3, 0), (1, 1)), 16: ((2, 1), (2, 1))}


PATCH_EMBEDS = Registry("patch embedding")


def register_patch_embed(
    name: str,
) -> Callable[[type["BasePatchEmbed"]], type["BasePatchEmbed"]]:
    """Class decorator that registers a patch embedding under `name`.

    The name is then a value of `CrossViTConfig.patch_embed`. The class is also registered with
    Keras, so that models that use it can be saved and loaded.

    Args:
        name: The name.

    Raises:
        ValueError: If another class has that name, or is registered with Keras under the class'
            own name, or if it is not derived from `BasePatchEmbed`.
    """
    return PATCH_EMBEDS.register_layer(name, BasePatchEmbed)


class BasePatchEmbed(keras.layers.Layer):
    """Base class of the patch embeddings: their arguments, grid and shapes.

    A subclass implements `build`, which sets `grid`, `call` and `macs`, as `PatchEmbed` does.

    Args:
        patch_size: Side of the square patches, in pixels, positive.
        embed_dim: Width C of the tokens, positive.
    """

    def __init__(self, patch_size: int, embed_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = check_positive_int("patch_size", patch_size)
        self.embed_dim = check_positive_int("embed_dim", embed_dim)

    def check_grid(self, input_shape: Shape) -> tuple[int, int]:
        """The patch grid `(rows, columns)` of an image whose sides the patch size divides."""
        sides = tuple(input_shape[1:3])
        known = len(input_shape) == 4 and None not in input_shape[1:]
        if not known or any(side % self.patch_size for side in sides):
            raise ValueError(
                "Images must be `(B, H, W, channels)` of known size with H and W multiples of "
                f"patch_size={self.patch_size}. Received: input_shape={input_shape}"
            )
        rows, columns = (side // self.patch_size for side in sides)
        return rows, columns

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, columns = self.check_grid(input_shape)
        return (input_shape[0], rows * columns, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
        }


@register_patch_embed("linear")
class PatchEmbed(BasePatchEmbed):
    """Linear patch embedding: each patch of the image becomes one token (section 3.1).

    Args:
        patch_size: Side of the square patches, in pixels, positive.
        embed_dim: Width C of the tokens, positive.

    Call arguments:
        images: `(B, H, W, channels)`, where H and W are known multiples of `patch_size`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        Patch tokens `(B, N, C)` in row-major order, `N = (H / patch_size) * (W / patch_size)`.

    Raises:
        ValueError: If an argument is not a positive integer, the height or width of the image
            is not a multiple of the patch size, or a later image has another size.
    """

    def build(self, input_shape: Shape) -> None:
        self.grid = self.check_grid(input_shape)
        self.input_spec = keras.InputSpec(shape=(None, *input_shape[1:]))
        self.convs = []
        table = self.conv_table()
        for index, (filters, kernel, stride, _) in enumerate(table):
            conv = keras.layers.Conv2D(
                filters,
                kernel,
                stride,
                data_format="channels_last",
                kernel_initializer=uniform_init(),
                dtype=self.dtype_policy,
                name=f"conv_{index}" if len(table) > 1 else "proj",
            )
            conv.build(input_shape)
            input_shape = (*input_shape[:3], filters)
            self.convs.append(conv)
        track(self, self.convs)

    def conv_table(self) -> tuple[tuple[int, int, int, int], ...]:
        """The convolutions in order, each as `(filters, kernel, stride, padding)`."""
        return ((self.embed_dim, self.patch_size, self.patch_size, 0),)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        rows, columns = self.grid
        x = of_size(images, (rows * self.patch_size, columns * self.patch_size, None))
        for index, (conv, (_, _, _, pad)) in enumerate(
            zip(self.convs, self.conv_table(), strict=True)
        ):
            if index > 0:
                x = ops.relu(x)
            if pad:
                # Symmetric, as in PyTorch. "same" pads a strided convolution more at the end
                # than at the start, which gives different values.
                x = ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            x = apply_conv(conv, x, training)
        return ops.reshape(x, (-1, rows * columns, self.embed_dim))

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one image."""
        _, height, width, channels = input_shape
        total = 0
        for filters, kernel, stride, pad in self.conv_table():
            height = (height + 2 * pad - kernel) // stride + 1
            width = (width + 2 * pad - kernel) // stride + 1
            total += height * width * kernel**2 * channels * filters
            channels = filters
        return total


@register_patch_embed("conv")
class ConvPatchEmbed(PatchEmbed):
    """Patch embedding by three convolutions with ReLU between them, as in the dagger models.

    The paper says "three convolutional layers" (section 4.1); kernel sizes, strides
    and padding are those of the released code, which has them for patches of 12 and 16 pixels.

    Args:
        patch_size: 12 or 16, in pixels.
        embed_dim: Width C of the tokens, a multiple of 4: the convolutions have C/4, C/2 and C
            filters.

    Call arguments:
        images: `(B, H, W, channels)`, where H and W are known multiples of `patch_size`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        Patch tokens `(B, N, C)` in row-major order, `N = (H / patch_size) * (W / patch_size)`.

    Raises:
        ValueError: If an argument is not allowed, the height or width of the image is not a
            multiple of the patch size, or a later image has another size.
    """

    def __init__(self, patch_size: int, embed_dim: int, **kwargs: Any) -> None:
        check_choice("patch_size", patch_size, STRIDE_AND_PADDING)
        super().__init__(patch_size, embed_dim, **kwargs)
        if embed_dim % 4:
            raise ValueError(f"`embed_dim` must be a multiple of 4. Received: {embed_dim=}")

    def conv_table(self) -> tuple[tuple[int, int, int, int], ...]:
        second, third = STRIDE_AND_PADDING[self.patch_size]
        return (
            (self.embed_dim // 4, 7, 4, 3),
            (self.embed_dim // 2, 3, *second),
            (self.embed_dim, 3, *third),
        )
