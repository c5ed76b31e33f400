"""What the published weights expect of an image: its statistics, and what is cropped of it."""

from collections.abc import Sequence

# Mean and standard deviation per channel (RGB), of pixels scaled to 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def default_crop_ratio(size: Sequence[int]) -> float:
    """The crop ratio of the published evaluation: 1.0 at 408 x 408 pixels, else 0.875."""
    return 1.0 if tuple(size[:2]) == (408, 408) else 0.875
