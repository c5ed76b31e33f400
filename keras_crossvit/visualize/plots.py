"""Pictures of what the other functions of `keras_crossvit.visualize` return.

Each draws one image of the batch and returns a matplotlib `Figure`; `path` writes it as a PNG
file as well.
"""

import numpy as np

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.visualize.attention import mean_over_heads
from keras_crossvit.visualize.resize import resize_maps

_SIDE = 2.6  # inches of a picture


def plot_cross_attention(image, maps, index=0, path=None):
    """A row a stage: the image, what the small and what the large branch's class token reads.

    Args:
        image: `(H, W, 3)`, pixels in 0..255, the picture to draw on.
        maps: What `cross_attention` returned; the mean of the heads is drawn.
        index: Which image of the batch it is.
        path: The PNG file to write; `None` writes none.

    Returns:
        The matplotlib `Figure`.
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


def plot_rollout(image, maps, index=0, path=None):
    """The image, and beside it the rollout of each branch.

    Args:
        image: As in `plot_cross_attention`.
        maps: What `attention_rollout` returned.
        index: Which image of the batch it is.
        path: The PNG file to write; `None` writes none.

    Returns:
        The matplotlib `Figure`.
    """
    shown = [(f"{x} branch", attention.patches[index]) for x, attention in maps.items()]
    return _draw(image, [[("image", None), *shown]], path)


def plot_gradcam(image, maps, index=0, path=None):
    """The image, and beside it the map of each branch and of both.

    Args:
        image: As in `plot_cross_attention`.
        maps: What `gradcam` returned.
        index: Which image of the batch it is.
        path: The PNG file to write; `None` writes none.

    Returns:
        The matplotlib `Figure`.
    """
    shown = [(name, values[index]) for name, values in maps.items()]
    return _draw(image, [[("image", None), *shown]], path)


def plot_feature_maps(maps, index=0, channels=36, seed=0, path=None):
    """Random channels of both branches side by side, each scaled for itself (figure 5).

    Args:
        maps: What `feature_maps` returned.
        index: Which image of the batch to draw.
        channels: How many channels of each branch, positive; at most all are drawn.
        seed: Seed of the choice.
        path: The PNG file to write; `None` writes none.

    Returns:
        The matplotlib `Figure`.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a screen

    check_positive_int("channels", channels)
    figure = Figure(figsize=(4.5 * len(maps), 4.5), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(maps)))
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
    """Rows of `(title, map or None)`: the image, with the map laid over it."""
    from matplotlib.figure import Figure  # no pyplot: it would choose a screen

    picture = np.clip(np.asarray(image, "float32"), 0, 255) / 255
    height, width = picture.shape[:2]
    columns = max(len(row) for row in rows)
    size = (_SIDE * columns, (_SIDE * height / width + 0.3) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, values) in zip(line, row, strict=True):
            axis.set_axis_off()
            axis.set_title(title, fontsize=8)
            axis.imshow(picture)
            if values is not None:
                axis.imshow(resize_maps(values, height, width), cmap="inferno", alpha=0.6)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
