"""Pictures: where they come from, how they are read, cropped, augmented and batched."""

from keras_crossvit.data.images import evaluation_transform
from keras_crossvit.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from keras_crossvit.data.sources import open_source

__all__ = [
    "evaluation_batches",
    "evaluation_transform",
    "open_source",
    "steps_per_epoch",
    "training_batches",
]
