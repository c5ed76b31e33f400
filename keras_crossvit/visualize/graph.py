"""The stages of a model and what flows between them.

Everything is computed beside the model: further functional models share parts of its graph,
and the layers of a stage are called on the tokens that enter it. Nothing is added to the model.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.checks import check_choice
from keras_crossvit.models import CrossViT

BRANCHES = ("small", "large")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A multi-scale block, or an encoder of a model of one branch.

    Args:
        layer: The `MultiScaleBlock` or `TransformerBlock`.
        encoders: `{branch: [TransformerBlock, ...]}`.
        fusion: The `Fusion` that ends the stage, or `None`.
    """

    layer: keras.layers.Layer
    encoders: dict
    fusion: keras.layers.Layer | None

    def fuse(self, tokens: dict) -> dict:
        """`{branch: tokens}` after the encoders to those after the stage."""
        if self.fusion is None:
            return tokens
        return dict(zip(tokens, self.fusion(list(tokens.values())), strict=True))


class Graph:
    """A model of this package, taken apart.

    Args:
        model: A CrossViT, or the model of one branch, trained or not.

    Raises:
        ValueError: If `model` is no such model.
    """

    def __init__(self, model: CrossViT):
        if not isinstance(model, CrossViT):
            raise ValueError(
                "`model` must be a CrossViT of this package, not a model around one (take "
                f"model.get_layer(...) out of it). Received: {type(model).__name__} "
                f"{getattr(model, 'name', '')!r}"
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

    def check_images(self, images):
        """`images` as the tensor `(B, H, W, channels)` that the model takes."""
        images = ops.convert_to_tensor(images, "float32")
        wanted = self.model.input_shape[1:]
        if tuple(images.shape[1:]) != tuple(wanted) or len(images.shape) != 4:
            raise ValueError(
                f"`images` must be (B, {', '.join(map(str, wanted))}), as the model's input. "
                f"Received: a shape of {tuple(images.shape)}"
            )
        return images

    def stage(self, index: int) -> Stage:
        """Stage number `index`, from 0, or from the end with a negative number."""
        if isinstance(index, bool) or not isinstance(index, int):
            raise ValueError(f"`stage` must be an integer. Received: stage={index!r}")
        check_choice("stage", index, range(-len(self.stages), len(self.stages)))
        return self.stages[index]

    def tokens_before(self, images) -> list[dict]:
        """What enters each of the stages: a list of `{branch: (B, tokens, C)}`."""
        return self._run(images, [stage.layer.input for stage in self.stages])

    def tokens_after(self, images, stage: Stage) -> dict:
        """What a `Stage` returns: `{branch: (B, tokens, C)}`."""
        return self._run(images, [stage.layer.output])[0]

    def _run(self, images, points):
        """The values at symbolic points of the model's graph, each of all branches."""
        named = {str(number): point for number, point in enumerate(points)}  # keeps lists of one
        values = keras.Model(self.model.input, named)(images, training=False)
        return [self._by_branch(values[name]) for name in named]

    def _by_branch(self, tokens):
        return dict(zip(self.branches, keras.tree.flatten(tokens), strict=True))

    def on_grid(self, values, branch: str):
        """`(..., N)` values of a branch's patches as `(..., rows, columns)`."""
        return values.reshape(*values.shape[:-1], *self.model.grids[branch])

    def logits(self, tokens: dict, stage: Stage):
        """From the tokens after a stage to the logits `(B, classes)`, by the model's own graph."""
        rest = keras.Model(stage.layer.output, self.model.logits)
        return rest(keras.tree.pack_sequence_as(stage.layer.output, list(tokens.values())))


def to_array(x) -> np.ndarray:
    """A tensor as a float32 array of its own."""
    return np.array(ops.convert_to_numpy(ops.cast(x, "float32")))
