"""Figures of the arrays that the other functions of `keras_crossvit.visualize` return.

Each function draws one image of the batch and returns a matplotlib `Figure`. With `path`, it also
writes it to a file, such as a .png, .svg or .pdf.

Maps lie on the image in one colour scale, inferno, which is perceptually uniform. It grows more
opaque with the value, so that the image stays visible where a map is low; the image below it is
grey, so that every colour is the map's. Each map goes from its own minimum to its own maximum, as
the bar beside it shows: the branches' grids have different numbers of patches, and the scale of
one would leave the other dark.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_crossvit.common.checks import check_choice, check_positive_int, plain
from keras_crossvit.visualize.attention import Attention, mean_over_heads
from keras_crossvit.visualize.maps import resize_maps

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

_OTHER = {"small": "large", "large": "small"}
_SIDE = 3.0  # width of an image, in inches
_BAR = 0.7  # of the colour bar beside it, with its numbers
_TITLE = 0.45  # height of a title of two lines
_MOST_OPAQUE = 0.85
_DPI = 120


def plot_cross_attention(
    image: np.ndarray,
    maps: Sequence[Mapping[str, Attention]],
    index: int = 0,
    path: str | os.PathLike | None = None,
    *,
    stages: Sequence[int] | None = None,
    branches: Sequence[str] = ("small", "large"),
) -> "Figure":
    """Draws cross-attention: for each stage a row with the image and a map for each branch.

    Args:
        image: `(H, W, channels)`, pixels in 0..255, the image to draw on.
        maps: The result of `cross_attention`; its average over the heads is drawn.
        index: Index of this image in the batch that `maps` was computed from.
        path: The file to write, if any, in the format of its ending.
        stages: Indices of the stages to draw, from 0; `None` for all.
        branches: Branches whose class token's attention is drawn.

    Returns:
        The figure. Bars show the share of the class token's attention that a patch gets.

    Raises:
        ValueError: If `stages` is empty, there is no such stage, branch or index, or `image` is
            not one image.
    """
    rows = []
    for number in range(len(maps)) if stages is None else stages:
        check_choice("stages", number, range(len(maps)))
        row: list[tuple[str, np.ndarray | None]] = [(f"stage {number}", None)]
        for branch in branches:
            check_choice("branches", branch, _OTHER)
            other = _OTHER[branch]
            attention = mean_over_heads(maps[number][branch])
            _check_index(index, attention.itself)
            title = f"stage {number}: {branch} reads {other}\nitself {attention.itself[index]:.0%}"
            row.append((title, attention.patches[index]))
        rows.append(row)
    if not rows:
        raise ValueError(
            f"`stages` must name at least one stage of `maps`. Received: stages={stages!r}"
        )
    return _draw(image, rows, path, as_share=True)


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
        path: The file to write, if any, in the format of its ending.

    Returns:
        The figure. Bars show the share of the class token that comes from a patch.

    Raises:
        ValueError: If there is no such index, or `image` is not one image.
    """
    row: list[tuple[str, np.ndarray | None]] = [("image", None)]
    for branch, attention in maps.items():
        _check_index(index, attention.itself)
        title = f"{branch} branch, all stages\nitself {attention.itself[index]:.0%}"
        row.append((title, attention.patches[index]))
    return _draw(image, [row], path, as_share=True)


def plot_gradcam(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    index: int = 0,
    path: str | os.PathLike | None = None,
    *,
    scores: Sequence[tuple[str, float]] | None = None,
) -> "Figure":
    """Draws the image and, beside it, the map of each branch and, with two branches, of both.

    Args:
        image: As in `plot_cross_attention`.
        maps: The result of `gradcam`.
        index: Index of this image in the batch that `maps` was computed from.
        path: The file to write, if any, in the format of its ending.
        scores: The result of `class_scores` for the same images and classes; the title is then
            the name of the class and its score.

    Returns:
        The figure. Bars show the evidence in units of the logit: of a patch in the branches' maps,
        of a pixel in that of both.

    Raises:
        ValueError: If there is no such index, or `image` is not one image.
    """
    row: list[tuple[str, np.ndarray | None]] = [("image", None)]
    for branch, values in maps.items():
        _check_index(index, values)
        title = "both branches" if branch == "both" else f"{branch} branch"
        if branch != "both" or "small" in maps:  # for one branch it is the same map
            row.append((title, values[index]))
    if scores is None:
        return _draw(image, [row], path)
    _check_index(index, scores)
    name, score = scores[index]
    return _draw(image, [row], path, title=f"{name}, {score:.0%}")


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
        path: The file to write, if any, in the format of its ending.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such index, `maps` is empty, or `channels` is not positive.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display

    check_positive_int("channels", channels)
    if not maps:
        raise ValueError("`maps` must hold at least one branch. Received: none")
    for values in maps.values():
        _check_index(index, values)
    rows, columns = next(iter(maps.values())).shape[1:3]
    size = (4.5 * len(maps), 4.5 * rows / columns + _TITLE)
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(1, len(maps), squeeze=False)[0]
    for part, (branch, values) in zip(parts, maps.items(), strict=True):
        shown = min(channels, values.shape[-1])
        part.suptitle(f"{branch} branch, {shown} of {values.shape[-1]} channels", fontsize=11)
        chosen = np.random.default_rng(seed).permutation(values.shape[-1])[:shown]
        side = int(np.ceil(np.sqrt(shown)))
        axes = part.subplots(int(np.ceil(shown / side)), side, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, channel in zip(axes, sorted(chosen), strict=False):
            axis.imshow(values[index, :, :, channel], cmap="viridis")
    return _written(figure, path)


def _check_index(index, values):
    if type(plain(index)) is not int or index not in range(-len(values), len(values)):
        raise ValueError(
            f"`index` must be that of an image of the batch, below {len(values)}. "
            f"Received: index={index!r}"
        )


def _draw(image, rows, path, title=None, as_share=False):
    """Draws rows of `(title, map or None)`: the image, with the map on top of it.

    Args:
        image: `(H, W, channels)`, pixels in 0..255.
        rows: The rows, equally long.
        path: The file to write, if any, in the format of its ending.
        title: Title of the figure.
        as_share: Whether values are shares, written as percentages.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display

    pixels = np.clip(np.asarray(image, "float32"), 0, 255) / 255
    if pixels.ndim != 3 or not pixels.size:
        raise ValueError(
            "`image` must be one image, of the shape (H, W, channels), not empty. "
            f"Received: an array of the shape {pixels.shape}"
        )
    height, width, channels = pixels.shape
    columns = len(rows[0])
    row_height = _SIDE * height / width + _TITLE
    above = _TITLE if title else 0
    size = (_SIDE * columns + _BAR * (columns - 1), row_height * len(rows) + above)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (name, values) in zip(line, row, strict=True):
            axis.set_axis_off()
            axis.set_title(name, fontsize=11, parse_math=False)
            grey = pixels.mean(axis=-1)
            if values is None:  # channels that are not colours are shown by their mean, too
                axis.imshow(pixels if channels == 3 else grey, cmap="gray", vmin=0, vmax=1)
            else:
                axis.imshow(grey, cmap="gray", vmin=0, vmax=1)
                _lay_on(axis, resize_maps(values, height, width), as_share)
    if title is not None:
        figure.suptitle(title, fontsize=13, parse_math=False)
    return _written(figure, path)


def _lay_on(axis, values, as_share):
    """Draws a map on the image, and its bar, as high as the image."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    low, high = float(values.min()), float(values.max())
    # A constant map has no high places: the photograph shows through all of it.
    high = high if high > low else low + (abs(low) or 1.0)
    shown = axis.imshow(values, cmap=_colours(), vmin=low, vmax=high)
    place = axis.inset_axes([1.02, 0, 0.05, 1])
    place.set_facecolor("gray")  # what is transparent on the image is transparent here
    number = PercentFormatter(1) if as_share else FuncFormatter(lambda x, _: f"{x:.3g}")
    bar = axis.figure.colorbar(shown, cax=place, ticks=MaxNLocator(4), format=number)
    bar.ax.tick_params(labelsize=9)


@functools.cache
def _colours() -> "ListedColormap":
    """Inferno, from transparent to nearly opaque."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, _MOST_OPAQUE, 256)
    return ListedColormap(colours, "inferno_on_image")


def _written(figure, path):
    if path is not None:
        if isinstance(path, str | os.PathLike) and not pathlib.Path(path).suffix:
            raise ValueError(f"`path` must have an ending, such as .png. Received: {path}")
        figure.savefig(path, dpi=_DPI)
    return figure
