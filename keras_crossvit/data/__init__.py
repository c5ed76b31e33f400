"""Images: where they come from, how they are read, cropped, augmented and batched."""

from keras_crossvit.data.augment import Augmentation
from keras_crossvit.data.config import InputConfig, register_augmentation
from keras_crossvit.data.images import evaluation_transform
from keras_crossvit.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from keras_crossvit.data.sources import MemorySplit, Source, Split, open_source

__all__ = [
    "Augmentation",
    "InputConfig",
    "MemorySplit",
    "Source",
    "Split",
    "evaluation_batches",
    "evaluation_transform",
    "open_source",
    "register_augmentation",
    "steps_per_epoch",
    "training_batches",
]
