"""What the tests of the exports share."""

import numpy as np

from keras_crossvit.data.images import decode, evaluation_transform
from tests import base
from tests.data_room.image_files import encoded

LABELS = ["tench", "crane", "Äffchen", "crane", "a b"]  # names may repeat, as ImageNet's do


def picture(seed=0, file_format="PNG", height=50, width=70):
    """The bytes of an image file."""
    return encoded(base.pixels(1, height, width, seed=seed)[0].astype("uint8"), file_format)


def probabilities(model, files, crop_ratio=0.875):
    """What the Keras model says about image files."""
    size = model.input_shape[1:3]
    images = [evaluation_transform(decode(file), size, crop_ratio) for file in files]
    return model.predict(np.stack(images), verbose=0)
