"""Small maps at the size of the picture."""

import numpy as np


def resize_maps(maps, height, width):
    """Bilinear interpolation of maps; their values stay between the lowest and the highest.

    Args:
        maps: `(..., rows, columns)`.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        float32 `(..., height, width)`.
    """
    rows, columns = _weights(maps.shape[-2], height), _weights(maps.shape[-1], width)
    return (rows @ maps @ columns.T).astype("float32")


def _weights(old, new):
    """`(new, old)`: centres of new cells between the centres of old ones; rows sum to 1."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)))
