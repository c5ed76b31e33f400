"""Maps: the features of a stage as maps, and maps at the size of an image."""

import numpy as np

from keras_crossvit.common.typing import Tensor
from keras_crossvit.models import CrossViT
from keras_crossvit.visualize.graph import Graph, to_array


def feature_maps(model: CrossViT, images: Tensor, stage: int = -1) -> dict[str, np.ndarray]:
    """The patch tokens after a stage, as feature maps (figure 5).

    Args:
        model: A CrossViT with any fusion, or a model of one branch; it is not changed.
        images: `(B, H, W, 3)`, in the model's input range.
        stage: Index of the stage, from 0; negative indices count from the end. Figure 5 shows
            the last stage. In a model of one branch, each encoder is a stage.

    Returns:
        `{"small": (B, rows, columns, C_small), "large": (B, rows, columns, C_large)}`
        (without "small" for a model of one branch): the tokens after the stage, not normalised.
        `maps["small"][i, :, :, c]` is channel c of image i.

    Raises:
        ValueError: If there is no such stage, or the images do not fit the model.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    first = int(graph.class_token)
    maps = {}
    for branch, x in graph.tokens_after(images, graph.stage(stage)).items():
        patches = to_array(x)[:, first:]
        maps[branch] = patches.reshape(len(patches), *model.grids[branch], -1)
    return maps


def resize_maps(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes maps by bilinear interpolation, which stays within their range of values.

    Args:
        maps: `(..., rows, columns)`.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.

    Returns:
        float32 `(..., height, width)`.
    """
    rows = _bilinear_matrix(maps.shape[-2], height)
    columns = _bilinear_matrix(maps.shape[-1], width)
    return (rows @ maps @ columns.T).astype("float32")


def _bilinear_matrix(old, new):
    """The matrix `(new, old)` that resizes one axis, with half-pixel centres; rows sum to 1."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)))
