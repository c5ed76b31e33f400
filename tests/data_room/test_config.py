"""The values of the input pipeline and their ranges."""

import dataclasses
import math

import numpy as np
import pytest

from keras_crossvit.data import InputConfig


def test_a_batch_size_is_enough():
    config = InputConfig(batch_size=32)
    assert dataclasses.asdict(config) == {
        "batch_size": 32,
        "epochs": 1,
        "seed": 0,
        "augment": "reference",
        "exif_orientation": True,
        "crop_area": (0.08, 1.0),
        "horizontal_flip": True,
        "translation": 0.0,
        "rotation": 0.0,
        "randaugment_magnitude": 9.0,
        "randaugment_num_ops": 2,
        "randaugment_std": 0.5,
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "mixing_batch_size": None,
        "erasing_probability": 0.25,
        "label_smoothing": 0.1,
        "repeated_augmentation": 1,
        "parallel_calls": None,
    }
    assert dataclasses.replace(config, crop_area=[0.5, 1]).crop_area == (0.5, 1)
    assert type(dataclasses.replace(config, batch_size=np.int64(8)).batch_size) is int


@pytest.mark.parametrize(
    "allowed",
    [
        {"erasing_probability": 1},
        {"erasing_probability": 0},
        {"randaugment_magnitude": 10},
        {"randaugment_num_ops": 0},
        {"crop_area": (1, 1)},
        {"label_smoothing": 0.99},
        {"mixing_batch_size": 4},
    ],
)
def test_the_ends_of_the_ranges(allowed):
    (name,) = allowed
    assert getattr(InputConfig(batch_size=8, **allowed), name) == allowed[name]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("augment", "strong", "must be one of 'kerascv', 'none', 'reference'"),
        ("augment", "refernce", "Received: augment='refernce'. Did you mean 'reference'?"),
        ("batch_size", 0, "must be a positive integer"),
        ("batch_size", 8.0, "must be a positive integer"),
        ("epochs", 0, "must be a positive integer"),
        ("seed", -1, "must be an integer from 0"),
        ("seed", 2**32, "must be less than 2**32"),
        ("rotation", math.inf, "must be a number from 0"),
        ("crop_area", (True, True), "must be two shares"),
        ("seed", True, "must be an integer from 0"),
        ("randaugment_num_ops", 1.5, "must be an integer from 0"),
        ("crop_area", (0.5, 2), "must be two shares with 0 < lowest <= highest <= 1"),
        ("crop_area", (0.5, 0.4), "must be two shares"),
        ("crop_area", (0, 1), "must be two shares"),
        ("crop_area", 0.5, "must be two shares"),
        ("crop_area", (0.1, 0.2, 0.3), "must be two shares"),
        ("crop_area", "ab", "must be two shares"),
        ("exif_orientation", 0, "must be one of False, True"),  # which no command could read
        ("exif_orientation", 1.5, "must be one of False, True"),
        ("horizontal_flip", "yes", "must be one of False, True"),
        ("translation", 1, "must be a number in [0, 1)"),
        ("rotation", -1, "must be a number from 0"),
        ("randaugment_magnitude", 11, "must be a number in [0, 10]"),
        ("randaugment_magnitude", float("nan"), "must be a number in [0, 10]"),
        ("randaugment_std", -0.5, "must be a number from 0"),
        ("mixup_alpha", -0.1, "must be a number from 0"),
        ("cutmix_alpha", "much", "must be a number from 0"),
        ("erasing_probability", 1.5, "must be a number in [0, 1]"),
        ("label_smoothing", 1, "must be a number in [0, 1)"),
        ("mixing_batch_size", 0, "must be a positive integer"),
        ("repeated_augmentation", 0, "must be a positive integer"),
        ("parallel_calls", 0, "must be a positive integer"),
    ],
)
def test_values_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=f"^`{name}` must be ") as raised:
        InputConfig(**{"batch_size": 8, name: value})
    assert message in str(raised.value)
    assert f"Received: {name}={value!r}" in str(raised.value)
