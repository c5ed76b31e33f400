"""Bicubic interpolation as a matrix: the kernel of the published checkpoints.

Two things in CrossViT are resized by the same rule: the image that each branch sees
(inside the model) and the position embeddings (when a checkpoint is loaded at another
input size). Both follow PyTorch's `interpolate(mode="bicubic", align_corners=False)`:
cubic convolution with a = -0.75, half-pixel centres, no antialiasing, edges clamped.
TensorFlow's and JAX's bicubic use a = -0.5 and give other pixels.
"""

import functools

import numpy as np

_A = -0.75


def _cubic_weight(distance: np.ndarray) -> np.ndarray:
    """Weight of a sample at `distance` (0 to 2 samples) from the wanted point."""
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = ((_A * distance - 5 * _A) * distance + 8 * _A) * distance - 4 * _A
    return np.where(distance <= 1, near, far)


@functools.lru_cache(maxsize=64)
def bicubic_matrix(input_size: int, output_size: int) -> np.ndarray:
    """The matrix that resizes one axis from `input_size` to `output_size` samples.

    Returns:
        float64 array `(output_size, input_size)`, at most four entries a row, rows sum
        to 1; read-only, because it is cached.
    """
    centers = (np.arange(output_size) + 0.5) * (input_size / output_size) - 0.5
    first = np.floor(centers).astype(int)
    matrix = np.zeros((output_size, input_size))
    for offset in (-1, 0, 1, 2):
        weights = _cubic_weight(np.abs(centers - first - offset))
        columns = np.clip(first + offset, 0, input_size - 1)
        # Clamped columns repeat at the edges, so the weights must accumulate.
        np.add.at(matrix, (np.arange(output_size), columns), weights)
    matrix.setflags(write=False)
    return matrix


def resize_grid(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an array `(H, W, C)` to `(height, width, C)`: in float64, but the dtype is kept."""
    rows = bicubic_matrix(grid.shape[0], height)
    columns = bicubic_matrix(grid.shape[1], width)
    resized = np.einsum("yh,hwc,xw->yxc", rows, grid.astype("float64"), columns)
    return resized.astype(grid.dtype)
