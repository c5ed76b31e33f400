"""Image files that PIL writes, and what PIL makes of them: the tests' reference."""

import io
import math

import numpy as np
from PIL import Image


def noise(height=21, width=34, channels=3, seed=0):
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def photo():
    """A photograph, uint8 `(427, 640, 3)`."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")


def encoded(pixels, file_format, mode="RGB", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def decoded(image_bytes):
    """RGB as PIL reads it, uint8 `(H, W, 3)`."""
    return np.asarray(Image.open(io.BytesIO(image_bytes)).convert("RGB"))


def transformed(pixels, size, crop_ratio):
    """The evaluation transform of timm: torchvision's Resize and CenterCrop, on PIL."""
    image = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    target = [math.floor(side / crop_ratio) for side in size]
    if target[0] == target[1]:  # torchvision.transforms.Resize(int)
        long = int(target[0] * max(height, width) / min(height, width))
        resized = (target[0], long) if height <= width else (long, target[0])
    else:  # timm's ResizeKeepRatio
        ratio = min(height / target[0], width / target[1])
        resized = (round(height / ratio), round(width / ratio))
    # In two steps: in one, Pillow 13 begins with the columns of a tall, narrow image.
    for sides in ((height, resized[1]), resized):
        image = image.resize(sides[::-1], Image.Resampling.BICUBIC)
    top, left = (round((have - want) / 2) for have, want in zip(resized, size, strict=True))
    box = (left, top, left + size[1], top + size[0])
    return np.asarray(image.crop(box)).astype("float32")
