"""Which patches the class tokens attend to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_crossvit.common.typing import Tensor
from keras_crossvit.layers import CrossAttentionFusion, TransformerBlock
from keras_crossvit.layers.intermediates import AttentionRollout
from keras_crossvit.models import CrossViT
from keras_crossvit.visualize.graph import Graph, to_array


class Attention(NamedTuple):
    """How a token's attention is distributed; patches and token together sum to 1.

    Args:
        patches: The share of each patch, in [0, 1], `(..., rows, columns)`.
        itself: The share of the token itself, in [0, 1], `(...)`.
    """

    patches: np.ndarray
    itself: np.ndarray


def cross_attention(model: CrossViT, images: Tensor) -> list[dict[str, Attention]]:
    """How each class token attends to the other branch (A of equation 6).

    Args:
        model: A CrossViT with the fusion "cross_attention"; it is not changed. Without class
            tokens, the average of a branch's patch tokens takes the place of its class token.
        images: `(B, H, W, 3)`, in the model's input range.

    Returns:
        A list with `{"small": Attention, "large": Attention}` for each stage. "small" is the
        small branch's class token, which attends to the patches of the *large* branch:
        `patches` is `(B, h, rows, columns)` on the large branch's grid, with that branch's
        number of heads h, and `itself` is `(B, h)`. "large" is the reverse. For each head, the
        shares sum to 1. With a fusion depth above 1, the attention is that of the first module,
        the only one that sees patches.

    Raises:
        ValueError: If the model has no cross-attention, or the images do not fit.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    fusions = [x.fusion for x in graph.stages if isinstance(x.fusion, CrossAttentionFusion)]
    if len(fusions) < len(graph.stages):
        raise ValueError(
            "`model` must be a CrossViT with fusion='cross_attention'. Received: a model "
            + ("of one branch" if graph.branches == ("large",) else "with another fusion")
        )
    maps = []
    before = graph.tokens_before(images)
    for stage, fusion, tokens in zip(graph.stages, fusions, before, strict=True):
        encoded = stage.layer.encode(list(tokens.values()))
        small, large = (to_array(x) for x in fusion.attention_maps(encoded))
        maps.append(
            {
                "small": _attention(graph, small, "large"),
                "large": _attention(graph, large, "small"),
            }
        )
    return maps


def _attention(graph, shares, branch):
    """The `Attention` of shares `(..., 1 + N)` on the grid of `branch`."""
    return Attention(graph.on_grid(shares[..., 1:], branch), shares[..., 0])


def attention_rollout(model: CrossViT, images: Tensor) -> dict[str, Attention]:
    """Which patches of its own branch a class token draws on, over all encoders.

    This is attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in Transformers",
    ACL 2020). After each encoder, one half of a token is assumed to be the token itself (the
    residual path) and the other half what it attends to, averaged over the heads. The product
    over a branch's encoders tells how much each patch embedding contributes to the class
    token. What the fusions add from the other branch is ignored; `cross_attention` shows it.

    Args:
        model: A CrossViT with any fusion, or a model of one branch; it is not changed.
        images: `(B, H, W, 3)`, in the model's input range.

    Returns:
        `{"small": Attention, "large": Attention}` (without "small" for a model of one branch):
        `patches` is `(B, rows, columns)` on the branch's own grid, and `itself` is `(B,)`. The
        shares sum to 1.

    Raises:
        ValueError: If the model has no class tokens, or the images do not fit.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    if not graph.class_token:
        raise ValueError(
            "`model` must have class tokens: rollout follows what the class token attends to. "
            "Received: a model without class tokens"
        )
    maps: dict[str, list[np.ndarray]] = {branch: [] for branch in graph.branches}
    for stage, tokens in zip(graph.stages, graph.tokens_before(images), strict=True):
        for branch, x in tokens.items():
            maps[branch] += self_attention_maps(stage.encoders[branch], x)
    rollout = AttentionRollout(dtype="float32")
    return {x: _attention(graph, to_array(rollout(maps[x])), x) for x in maps}


def self_attention_maps(encoders: Sequence[TransformerBlock], tokens: Tensor) -> list[np.ndarray]:
    """The attention maps of consecutive transformer encoders.

    Args:
        encoders: The encoders in order.
        tokens: The input of the first encoder, `(B, N, C)`.

    Returns:
        An array `(B, h, N, N)` for each encoder; rows sum to 1.
    """
    maps = []
    for block in encoders:
        maps.append(to_array(block.attention.attention_map(block.norm1(tokens))))
        tokens = block(tokens, training=False)
    return maps


def mean_over_heads(attention: Attention) -> Attention:
    """The average over heads: from an `Attention` `(B, h, ...)` to one `(B, ...)`."""
    return Attention(*(x.mean(axis=1) for x in attention))
