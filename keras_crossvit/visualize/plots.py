"""Figures of the arrays that the other functions of `keras_crossvit.visualize` return.

Each function draws one image of the batch and returns a matplotlib `Figure`. With `path`, it also
writes a PNG file.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.visualize.attention import Attention, mean_over_heads
from keras_crossvit.visualize.maps import resize_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 2.6  # width of an image, in inches


def plot_cross_attention(
    image: np.ndarray,
    maps: Sequence[Mapping[str, Attention]],
    index: int = 0,
    path: str | os.PathLike | None = None,
) -> "Figure":
    """Draws cross-attention: for each stage a row with the image and a map for each branch.

    Args:
        image: `(H, W, 3)`, pixels in 0..255, the image to draw on.
        maps: The result of `cross_attention`, of which the average over the heads is drawn.
        index: Index of this image in the batch that `maps` was computed from.
        path: The PNG file to write, if any.

    Returns:
        The figure.
    """
    rows = []
    for number, stage in enumerate(maps):
        row = [(f"stage {number}", None)]
        for branch, other in (("small", "large"), ("large", "small")):
            attention = mean_over_heads(stage[branch])
            title = f"{branch} reads {other}, itself {attention.itself[index]:.0%}"
            row.append((title, attention.patches[index]))
        rows.append(row)
    return _draw(image, rows, path)


def plot_rollout(
    image: np.ndarray,
    maps: Mapping[str, Attention],
    index: int = 0,
    path: str | os.PathLike | None = None,
) -> "Figure":
    """Draws the image and, beside it, the rollout of each branch.

    Args:
        image: As in `plot_cross_attention`.
        maps: The result of `attention_rollout`.
        index: Index of this image in the batch that `maps` was computed from.
        path: The PNG file to write, if any.

    Returns:
        The figure.
    """
    shown = [(f"{x} branch", attention.patches[index]) for x, attention in maps.items()]
    return _draw(image, [[("image", None), *shown]], path)


def plot_gradcam(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    index: int = 0,
    path: str | os.PathLike | None = None,
) -> "Figure":
    """Draws the image and, beside it, the map of each branch and of both.

    Args:
        image: As in `plot_cross_attention`.
        maps: The result of `gradcam`.
        index: Index of this image in the batch that `maps` was computed from.
        path: The PNG file to write, if any.

    Returns:
        The figure.
    """
    shown = [(name, values[index]) for name, values in maps.items()]
    return _draw(image, [[("image", None), *shown]], path)


def plot_feature_maps(
    maps: Mapping[str, np.ndarray],
    index: int = 0,
    channels: int = 36,
    seed: int = 0,
    path: str | os.PathLike | None = None,
) -> "Figure":
    """Draws random channels of both branches side by side, each on its own scale (figure 5).

    Args:
        maps: The result of `feature_maps`.
        index: Index of the image in the batch.
        channels: Number of channels of each branch, positive; at most all are drawn.
        seed: Seed of the random choice of channels.
        path: The PNG file to write, if any.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display

    check_positive_int("channels", channels)
    figure = Figure(figsize=(4.5 * len(maps), 4.5), layout="constrained")
    parts = figure.subfigures(1, len(maps), squeeze=False)[0]
    for part, (branch, values) in zip(parts, maps.items(), strict=True):
        part.suptitle(f"{branch} branch")
        shown = min(channels, values.shape[-1])
        chosen = np.random.default_rng(seed).permutation(values.shape[-1])[:shown]
        side = int(np.ceil(np.sqrt(shown)))
        axes = part.subplots(int(np.ceil(shown / side)), side, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, channel in zip(axes, sorted(chosen), strict=False):
            axis.imshow(values[index, :, :, channel], cmap="viridis")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _draw(image, rows, path):
    """Draws rows of `(title, map or None)`: the image, with the map on top of it."""
    from matplotlib.figure import Figure  # not pyplot, which would need a display

    pixels = np.clip(np.asarray(image, "float32"), 0, 255) / 255
    height, width = pixels.shape[:2]
    columns = max(len(row) for row in rows)
    size = (_SIDE * columns, (_SIDE * height / width + 0.3) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, values) in zip(line, row, strict=True):
            axis.set_axis_off()
            axis.set_title(title, fontsize=8)
            axis.imshow(pixels)
            if values is not None:
                axis.imshow(resize_maps(values, height, width), cmap="inferno", alpha=0.6)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
