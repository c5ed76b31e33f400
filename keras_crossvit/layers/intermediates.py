"""A model's intermediate values as outputs: tokens of each encoder, attention maps, patch maps.

These layers are added to a model's own by `keras_crossvit.feature_model`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.common.registry import PACKAGE
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.multi_scale_block import MultiScaleBlock
from keras_crossvit.layers.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(PACKAGE)
class Intermediates(keras.layers.Layer):
    """A stage that also returns its intermediate values.

    The stage is used as it is, with its weights. A self-attention map is computed alongside the
    encoder, whose kernel never forms it; it costs the projection to queries, keys and values once
    more.

    Args:
        stage: A `MultiScaleBlock`, or a `TransformerBlock` of a model of one branch.
        points: What to return, in any order. For a `MultiScaleBlock`: "small" and "large" (the
            tokens after the stage), "small/block_0" (after an encoder, before the fusion),
            "small/block_0/attention" (its attention map), "small/cross_attention" (the
            attention map of the class token, with the cross-attention fusion only). For a
            `TransformerBlock`: "large" (the tokens after it; a model of one branch has the
            large one) and "attention".

    Call arguments:
        tokens: As for the stage.
        training: As for the stage.

    Returns:
        `{point: tensor}`. Tokens are `(B, N, C)`; self-attention maps `(B, h, N, N)`;
        cross-attention maps `(B, h, 1 + N)` over the query itself and the other branch's N
        patches, with the other branch's heads h.
    """

    def __init__(
        self, stage: MultiScaleBlock | TransformerBlock, points: Sequence[str], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.points = list(points)

    def build(self, input_shape: Any) -> None:
        if not self.stage.built:
            self.stage.build(input_shape)

    def call(self, tokens: Any, training: bool = False) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if isinstance(self.stage, TransformerBlock):
            found["large"] = self._encode(self.stage, tokens, "", found, training)
            return {point: found[point] for point in self.points}
        encoded = []
        for branch, x in zip(("small", "large"), tokens, strict=True):
            for index, block in enumerate(self._blocks(branch)):
                name = f"{branch}/block_{index}"
                x = found[name] = self._encode(block, x, f"{name}/", found, training)
            encoded.append(x)
        if any(point.endswith("cross_attention") for point in self.points):
            maps = self.stage.fuse.attention_maps(encoded)
            found["small/cross_attention"], found["large/cross_attention"] = maps
        if {"small", "large"} & {*self.points}:
            found["small"], found["large"] = self.stage.fuse(encoded, training=training)
        return {point: found[point] for point in self.points}

    def _encode(self, block, tokens, prefix, found, training):
        """The tokens after an encoder; puts its attention map into `found` if it is wanted."""
        if f"{prefix}attention" in self.points:
            found[f"{prefix}attention"] = block.attention.attention_map(block.norm1(tokens))
        return block(tokens, training=training)

    def _blocks(self, branch):
        return self.stage.small_blocks if branch == "small" else self.stage.large_blocks

    def compute_output_shape(self, input_shape: Any) -> dict[str, Shape]:
        return {point: self._shape(point, input_shape) for point in self.points}

    def _shape(self, point, input_shape):
        if isinstance(self.stage, TransformerBlock):
            shape, heads = input_shape, self.stage.num_heads
        else:
            shapes = dict(zip(("small", "large"), input_shape, strict=True))
            branch = point.partition("/")[0]
            if point.endswith("cross_attention"):
                branch = {"small": "large", "large": "small"}[branch]
            shape, heads = shapes[branch], self._blocks(branch)[0].num_heads
        batch, length, _ = shape
        if point.endswith("cross_attention"):
            return (batch, heads, length if self.stage.class_token else 1 + length)
        return (batch, heads, length, length) if point.endswith("attention") else tuple(shape)

    def macs(self, input_shape: Any) -> int:
        """Multiply-accumulates for one sample.

        A self-attention map repeats three of its encoder's projections and the scores. The cost
        of a cross-attention map, for its one query, is not counted.
        """
        if isinstance(self.stage, TransformerBlock):
            shapes, total = {"": input_shape}, self.stage.macs(input_shape)
        else:
            shapes = dict(zip(("small", "large"), input_shape, strict=True))
            total = sum(block.macs(shapes[x]) for x in shapes for block in self._blocks(x))
            if {"small", "large"} & {*self.points}:
                total += self.stage.fuse.macs(input_shape)
        for point in self.points:
            if point.endswith("attention") and not point.endswith("cross_attention"):
                _, length, width = shapes[point.rpartition("attention")[0].partition("/")[0]]
                total += 3 * length * width**2 + length**2 * width
        return total

    def get_config(self) -> dict[str, Any]:
        stage = keras.saving.serialize_keras_object(self.stage)
        return {**super().get_config(), "stage": stage, "points": self.points}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Intermediates":
        stage = keras.saving.deserialize_keras_object(config["stage"])
        return cls(**{**config, "stage": stage})


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionRollout(keras.layers.Layer):
    """Traces the class token back through consecutive encoders (attention rollout).

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020. After each
    encoder, one half of a token is assumed to be the token itself (the residual path) and the
    other half what it attends to, averaged over the heads.

    Call arguments:
        maps: The attention maps `(B, h, N, N)` of the encoders in order; rows sum to 1.

    Returns:
        What each token that enters the first encoder contributes to the first token that
        leaves the last one, `(B, N)`, float32, sum 1.
    """

    def call(self, maps: list[Tensor]) -> Tensor:
        share = ops.one_hot([[0]], maps[-1].shape[-1], dtype="float32")  # (1, 1, N)
        for attention in reversed(maps):
            attended = ops.matmul(share, ops.mean(ops.cast(attention, "float32"), axis=1))
            share = 0.5 * share + 0.5 * attended
        return share[:, 0]

    def compute_output_spec(self, maps: list[Tensor]) -> keras.KerasTensor:
        batch, _, length, _ = maps[0].shape
        return keras.KerasTensor((batch, length), "float32")


@keras.saving.register_keras_serializable(PACKAGE)
class PatchMap(keras.layers.Layer):
    """Arranges the tokens of a branch as its patches lie in the image.

    Args:
        rows: Rows of patches, positive.
        columns: Columns of patches, positive.
        class_token: Whether the first token is a class token, which is then left out.

    Call arguments:
        tokens: Tokens `(B, N, C)`; or an attention map `(B, h, N, N)`, of which the row of the
            class token is taken or, without class tokens, the mean of all rows.

    Returns:
        `(B, rows, columns, C)`; for an attention map `(B, rows, columns, h)`.

    Raises:
        ValueError: If `rows` or `columns` is not a positive integer.
    """

    def __init__(self, rows: int, columns: int, class_token: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = check_positive_int("rows", rows)
        self.columns = check_positive_int("columns", columns)
        self.class_token = class_token

    def call(self, tokens: Tensor) -> Tensor:
        if len(tokens.shape) == 4:
            shares = tokens[:, :, 0] if self.class_token else ops.mean(tokens, axis=2)
            tokens = ops.transpose(shares, (0, 2, 1))
        patches = tokens[:, 1:] if self.class_token else tokens
        return ops.reshape(patches, (-1, self.rows, self.columns, tokens.shape[-1]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = input_shape[1] if len(input_shape) == 4 else input_shape[-1]
        return (input_shape[0], self.rows, self.columns, channels)

    def get_config(self) -> dict[str, Any]:
        sizes = {"rows": self.rows, "columns": self.columns}
        return {**super().get_config(), **sizes, "class_token": self.class_token}
