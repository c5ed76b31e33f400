"""What the published weights expect of an image: its statistics and its crop."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_crossvit.common.checks import check_up_to

logger = logging.getLogger("keras_crossvit")

_LOOKED_AT = 4  # images; looking at all of a large array would take longer than it is worth

# Mean and standard deviation per channel (RGB), of pixels scaled to 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def crop_ratio_for(size: Sequence[int], crop_ratio: float | None = None) -> float:
    """The given crop ratio, or the published evaluation's: 0.875, and 1.0 at 408 x 408.

    Raises:
        ValueError: If the given one is outside (0, 1].
    """
    if crop_ratio is not None:
        return check_up_to("crop_ratio", crop_ratio)
    return 1.0 if tuple(size[:2]) == (408, 408) else 0.875


def warn_of_unit_range(images: Any) -> None:
    """Logs a warning, once per process, if images that should be in 0..255 seem to be in 0..1.

    Args:
        images: A model's input. Only NumPy arrays of floats are checked, and only their first
            images; if these are all 0, they are black in either range.
    """
    for array in images if isinstance(images, list | tuple) else [images]:
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 1:
            continue
        first = array[:_LOOKED_AT]
        if first.size and first.min() >= 0 and 0 < first.max() <= 1:
            _say_once()


@functools.cache
def _say_once() -> None:
    logger.warning(
        "The model expects pixels in 0..255, but these images are in 0..1, nearly black to it: "
        "multiply them by 255."
    )
