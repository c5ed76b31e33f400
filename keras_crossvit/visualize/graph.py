"""The stages of a model and the tokens between them.

Additional functional models share parts of the model's graph, and the layers of a stage are
called on the tokens that enter it. The model itself is not changed.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.checks import check_choice
from keras_crossvit.common.pixels import warn_of_unit_range
from keras_crossvit.common.typing import Tensor
from keras_crossvit.layers import TransformerBlock
from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import takes_pixels


@dataclasses.dataclass(frozen=True)
class Stage:
    """A multi-scale block, or an encoder of a model of one branch.

    Args:
        layer: The `MultiScaleBlock` or `TransformerBlock`.
        encoders: `{branch: [TransformerBlock, ...]}`.
        fusion: The `Fusion` that ends the stage, or `None`.
    """

    layer: keras.layers.Layer
    encoders: dict[str, list[TransformerBlock]]
    fusion: keras.layers.Layer | None

    def fuse(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """`{branch: tokens}` after the stage, from those after its encoders."""
        if self.fusion is None:
            return tokens
        return dict(zip(tokens, self.fusion(list(tokens.values())), strict=True))


class Graph:
    """A model of this package, split into its stages.

    Args:
        model: A CrossViT, or a model of one branch, trained or not.

    Raises:
        ValueError: If `model` is not a CrossViT, or takes an image for each branch.
    """

    def __init__(self, model: CrossViT) -> None:
        if not isinstance(model, CrossViT):
            raise ValueError(
                "`model` must be a CrossViT of this package, not a model that contains one (get "
                f"it with model.get_layer(...)). Received: {type(model).__name__} "
                f"{getattr(model, 'name', '')!r}"
            )
        if model.takes_pairs:
            raise ValueError(
                '`model` must take one image for both branches, inputs="shared". '
                f'Received: {model.name!r} with inputs="separate"'
            )
        self.model = model
        self.branches = tuple(model.branches)
        self.stages = [
            Stage(
                layer,
                {branch: layers.blocks[index] for branch, layers in model.branches.items()},
                layer.fuse if len(self.branches) > 1 else None,
            )
            for index, layer in enumerate(model.stages)
        ]
        self.class_token = model.config.class_token

    def check_images(self, images: Tensor) -> Tensor:
        """`images` as a tensor `(B, H, W, channels)`, after a check of shape and values."""
        images = ops.convert_to_tensor(images, "float32")
        wanted = self.model.input_shape[1:]
        fits = len(images.shape) == 4 and all(
            side in (None, given) for side, given in zip(wanted, images.shape[1:], strict=True)
        )
        if not fits or not images.shape[0]:
            raise ValueError(
                f"`images` must be (B, {', '.join(map(str, wanted))}), as the model's input, and "
                f"at least one. Received: a shape of {tuple(images.shape)}"
            )
        values = to_array(images)
        if not np.isfinite(values).all():
            raise ValueError("`images` must hold finite numbers. Received: NaN or infinity")
        if takes_pixels(self.model):
            warn_of_unit_range(values)
        return images

    def stage(self, index: int) -> Stage:
        """The stage with this index, from 0; negative indices count from the end."""
        return self.stages[
            check_choice("stage", index, range(-len(self.stages), len(self.stages)))
        ]

    def tokens_before(self, images: Tensor) -> list[dict[str, Tensor]]:
        """The input of each stage, `{branch: (B, tokens, C)}`."""
        return self._run(images, [stage.layer.input for stage in self.stages])

    def tokens_after(self, images: Tensor, stage: Stage) -> dict[str, Tensor]:
        """The output of a stage, `{branch: (B, tokens, C)}`."""
        return self._run(images, [stage.layer.output])[0]

    def _run(self, images, points):
        """The values of Keras tensors of the model's graph, each `{branch: tokens}`."""
        named = {
            str(number): point for number, point in enumerate(points)
        }  # a list of one would be unwrapped
        values = keras.Model(self.model.input, named)(images, training=False)
        return [self._by_branch(values[name]) for name in named]

    def _by_branch(self, tokens):
        return dict(zip(self.branches, keras.tree.flatten(tokens), strict=True))

    def on_grid(self, values: np.ndarray, branch: str) -> np.ndarray:
        """Values `(..., N)` of a branch's patches as `(..., rows, columns)`."""
        return values.reshape(*values.shape[:-1], *self.model.grids[branch])

    def logits(self, tokens: dict[str, Tensor]) -> Tensor:
        """The mean of the heads' logits `(B, classes)` for the tokens after the last stage."""
        branches = self.model.branches
        logits = [branches[x].head(branches[x].pooled(tokens[x])) for x in tokens]
        return sum(ops.cast(x, "float32") for x in logits) / len(logits)


def to_array(x: Tensor) -> np.ndarray:
    """A tensor as a float32 NumPy array, always a copy."""
    return np.array(ops.convert_to_numpy(ops.cast(x, "float32")))
