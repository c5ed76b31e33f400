"""Which patches the class tokens read."""

from typing import NamedTuple

import numpy as np

from keras_crossvit.layers import CrossAttentionFusion
from keras_crossvit.visualize.graph import Graph, to_array


class Attention(NamedTuple):
    """How a token's attention is spread; all of it sums to 1.

    Args:
        patches: Share of each patch, in [0, 1], `(..., rows, columns)`.
        itself: Share of the reading token itself, in [0, 1], `(...)`.
    """

    patches: np.ndarray
    itself: np.ndarray


def cross_attention(model, images):
    """What each branch's class token reads of the other branch (A of equation 6).

    Args:
        model: A CrossViT with the fusion "cross_attention"; it is not changed. Without class
            tokens the reading token is the average of the branch's patch tokens.
        images: `(B, H, W, 3)`, as the model takes them.

    Returns:
        A list with a `{"small": Attention, "large": Attention}` for each stage. `"small"` is
        the small branch's token, which reads the patches of the *large* branch: `patches` is
        `(B, h, rows, columns)` on the large branch's grid, with its number of heads h, and
        `itself` `(B, h)`; `"large"` the other way round. `patches` of a head and its `itself`
        sum to 1. With a fusion depth above 1 it is the first module, the only one that reads
        patches.

    Raises:
        ValueError: If the model has no cross-attention, or the images do not fit.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    if not all(isinstance(stage.fusion, CrossAttentionFusion) for stage in graph.stages):
        raise ValueError(
            "`model` must be a CrossViT with fusion='cross_attention'. Received: a model "
            + ("of one branch" if graph.branches == ("large",) else "with another fusion")
        )
    maps = []
    for stage, tokens in zip(graph.stages, graph.tokens_before(images), strict=True):
        encoded = stage.layer.encode(list(tokens.values()))
        small, large = (to_array(x) for x in stage.fusion.attention_maps(encoded))
        maps.append(
            {
                "small": _attention(graph, small, "large"),
                "large": _attention(graph, large, "small"),
            }
        )
    return maps


def _attention(graph, weights, branch):
    """Weights `(..., 1 + N)` of a reading token and the patches of `branch`."""
    return Attention(graph.on_grid(weights[..., 1:], branch), weights[..., 0])


def attention_rollout(model, images):
    """Which patches of its own branch a class token has gathered, over all encoders.

    Rollout of Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: in
    each encoder half of a token is itself (the residual path) and half what it attends to,
    the mean of the heads; the product over the encoders of a branch says of which patch
    embeddings the class token is made. What the fusions bring in from the other branch is
    left out: `cross_attention` shows it.

    Args:
        model: A CrossViT with any fusion, or a model of one branch; it is not changed.
        images: `(B, H, W, 3)`, as the model takes them.

    Returns:
        `{"small": Attention, "large": Attention}` (without "small" for one branch): `patches`
        `(B, rows, columns)` on the branch's own grid and `itself` `(B,)`, which sum to 1.

    Raises:
        ValueError: If the model has no class tokens, or the images do not fit.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    if not graph.class_token:
        raise ValueError(
            "`model` must have class tokens: rollout follows what the class token reads. "
            "Received: a model without class tokens"
        )
    shares = {}  # branch -> what the class token is made of, at the last stage first
    before = graph.tokens_before(images)
    for stage, tokens in zip(reversed(graph.stages), reversed(before), strict=True):
        for branch, x in tokens.items():
            maps = self_attention_maps(stage.encoders[branch], x)
            shares[branch] = rollout(maps, shares.get(branch))
    return {x: _attention(graph, shares[x], x) for x in graph.branches}


def self_attention_maps(encoders, tokens):
    """The attention maps of transformer encoders in a row.

    Args:
        encoders: `TransformerBlock`s, the first one first.
        tokens: What enters the first, `(B, N, C)`.

    Returns:
        A list of arrays `(B, h, N, N)`, rows sum to 1.
    """
    maps = []
    for block in encoders:
        maps.append(to_array(block.attention.attention_map(block.norm1(tokens))))
        tokens = block(tokens, training=False)
    return maps


def rollout(maps, share=None):
    """Follows the first token back through attention maps.

    Args:
        maps: Arrays `(B, h, N, N)`, rows sum to 1, the first encoder first.
        share: How much the first token holds of each token after the last encoder, `(B, N)`,
            sum 1; `None` for all of itself.

    Returns:
        How much it holds of each token before the first encoder, `(B, N)`, sum 1.
    """
    if share is None:
        batch, _, length, _ = maps[0].shape
        share = np.zeros((batch, length), "float32")
        share[:, 0] = 1
    for attention in reversed(maps):
        read = np.einsum("bn,bnm->bm", share, attention.mean(axis=1))
        share = 0.5 * share + 0.5 * read
    return share


def mean_over_heads(attention):
    """An `Attention` with heads, `(B, h, ...)`, as one without, `(B, ...)`."""
    return Attention(*(x.mean(axis=1) for x in attention))
