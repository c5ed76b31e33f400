"""What is done to training images after the crop: to each one alone, and to a batch.

All randomness comes from the seeds that are given: same seed, same result, whatever else runs
at the same time. KerasCV is imported when an augmentation that uses it is made.
"""

from keras_crossvit.data.augment import kerascv, reference  # noqa: F401  (they register)
from keras_crossvit.data.augment.base import Augmentation, make_augmentation

__all__ = ["Augmentation", "make_augmentation"]
