"""The random crop: where it lies, what PIL makes of the same part, and broken files."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_crossvit.data.random_crop import _draw_box, random_resized_crop
from tests.data_room.image_files import decoded, encoded, noise, photo

FORMATS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "BMP": {},
    "GIF": {"mode": "P"},
}


def ramp(height=64, width=64):
    """An image whose pixels say where they lie: red is the column, green the row."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns, rows, 0 * rows], -1).astype("uint8")


@pytest.fixture(scope="module")
def crop():
    """The crop of a ramp of 64 x 64, quick to call many times."""
    file = encoded(ramp(), "PNG")
    return tf.function(
        lambda seed, low, high: random_resized_crop(file, (32, 32), (low, high), seed, False)
    )


def test_area_and_aspect(crop):
    areas, aspects = [], []
    for seed in range(200):
        part = crop(tf.constant([seed, 0]), 0.25, 0.5).numpy().astype(int)
        width, height = np.ptp(part[..., 0]) + 1, np.ptp(part[..., 1]) + 1
        areas.append(width * height / 64**2)
        aspects.append(np.log(width / height))
    assert 0.22 < min(areas) < 0.28
    assert 0.47 < max(areas) < 0.53
    assert abs(np.mean(areas) - 0.375) < 0.02
    assert abs(np.mean(aspects)) < 0.05
    assert np.abs(aspects).max() < np.log(4 / 3) + 0.07
    assert np.abs(aspects).max() > np.log(4 / 3) - 0.07


def test_place_is_uniform(crop):
    corners = []
    for seed in range(200):
        part = crop(tf.constant([0, seed]), 0.25, 0.25).numpy()
        corners.append([part[..., 1].min(), part[..., 0].min()])
    np.testing.assert_allclose(np.mean(corners, 0), (16, 16), atol=2)
    assert np.min(corners) <= 2
    assert np.max(corners) >= 29


def test_the_last_place_is_as_likely_as_the_first():
    """Of a part of 3 x 3 pixels in an image of 4 x 4."""
    draw = tf.function(lambda seed: _draw_box(tf.constant([4, 4]), (9 / 16, 9 / 16), seed))
    boxes = np.stack([draw(tf.constant([seed, 0])) for seed in range(200)])
    np.testing.assert_array_equal(boxes[:, 2:], 3)
    np.testing.assert_allclose(boxes[:, :2].mean(0), 0.5, atol=0.1)


def test_draws_stay_what_they_were():
    """What a seed draws does not change from one version to the next."""
    boxes = [_draw_box(tf.constant([40, 60]), (0.08, 1.0), (3, n)).numpy() for n in (5, 6)]
    np.testing.assert_array_equal(boxes, [(5, 15, 33, 26), (12, 13, 28, 33)])


def test_the_part_and_the_flip_have_seeds_of_their_own():
    """Or the place of a part would tell whether it is mirrored."""
    file, flips = encoded(ramp(), "PNG"), []
    for number in range(6):
        own = [tf.random.experimental.stateless_fold_in((number, 5), step) for step in (0, 1)]
        top, left, height, width = _draw_box(tf.constant([64, 64]), (0.3, 0.8), own[0]).numpy()
        part = ramp()[top : top + height, left : left + width]
        flips.append(bool(tf.random.stateless_uniform([], own[1]) < 0.5))
        found = random_resized_crop(file, (height, width), (0.3, 0.8), (number, 5))
        np.testing.assert_array_equal(found, part[:, ::-1] if flips[-1] else part)
    assert set(flips) == {True, False}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_decided_by_the_seed(crop, dtype):
    crops = [crop(tf.constant([s, 7], dtype), 0.1, 1.0).numpy() for s in (1, 1, 2)]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert np.abs(crops[0].astype(int) - crops[2]).max() > 1


def test_half_of_the_crops_are_mirrored():
    file = encoded(ramp(), "PNG")
    crops = [
        tf.function(lambda seed, flip=flip: random_resized_crop(file, (8, 8), (1, 1), seed, flip))
        for flip in (False, True)
    ]
    mirrored = 0
    for seed in range(100):
        plain, flipped = (crop(tf.constant([seed, 3])).numpy() for crop in crops)
        mirrored += (plain != flipped).any()
        assert (flipped == plain).all() or (flipped == plain[:, ::-1]).all()
    assert 35 < mirrored < 65


@pytest.mark.parametrize("side", [8, 33, 64])
def test_whole_area_takes_all_of_a_square(side):
    pixels = noise(side, side)
    expected = np.asarray(Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC))
    file = encoded(pixels, "PNG")
    for seed in range(10):
        ours = random_resized_crop(file, (40, 48), (1.0, 1.0), (seed, 1), False).numpy()
        assert ours.dtype == np.uint8
        difference = np.abs(ours.astype(int) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.01


@pytest.mark.parametrize(("height", "width", "box"), [(20, 90, (0, 32, 20, 27)), (90, 20, None)])
def test_fallback_is_the_middle(height, width, box):
    """No part of this shape has 9 tenths of the area: as much of the middle as allowed."""
    top, left, rows, columns = box or (32, 0, 27, 20)
    if box:
        left = (width - columns) // 2
    else:
        top = (height - rows) // 2
    part = ramp(height, width)[top : top + rows, left : left + columns]
    file = encoded(ramp(height, width), "PNG")
    ours = random_resized_crop(file, (rows, columns), (0.9, 1.0), (0, 0), False)
    np.testing.assert_array_equal(ours, part)


@pytest.mark.parametrize("file_format", FORMATS)
def test_part_of_a_file_is_pils(file_format):
    """The result is the part that the ramp shows at the same seed, resized by PIL."""
    options = FORMATS[file_format]
    pixels = photo()[100:228, 200:328]
    file, where = encoded(pixels, file_format, **options), encoded(ramp(128, 128), "PNG")
    for seed in range(6):
        seeds = (seed, 5)
        found = random_resized_crop(where, (128, 128), (0.3, 0.8), seeds, False).numpy()
        left, top = found[..., 0].min(), found[..., 1].min()
        right, bottom = found[..., 0].max() + 1, found[..., 1].max() + 1
        part = Image.fromarray(decoded(file)[top:bottom, left:right])
        expected = np.asarray(part.resize((60, 50), Image.Resampling.BICUBIC)).astype(int)
        ours = random_resized_crop(file, (50, 60), (0.3, 0.8), seeds, False).numpy()
        # At the border of a JPEG's part, colours are interpolated only from within it.
        assert np.abs(ours - expected)[2:-2, 2:-2].mean() < (1 if file_format == "JPEG" else 0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 400)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_tiny_images(file_format, shape):
    file = encoded(np.full((*shape, 3), 90, "uint8"), file_format)
    for seed in range(5):
        part = random_resized_crop(file, (8, 12), (0.01, 0.1), (seed, 0))
        np.testing.assert_array_equal(part, np.full((8, 12, 3), 90))


@pytest.mark.parametrize("file_format", FORMATS)
def test_broken_files(file_format):
    file = encoded(photo()[:60, :70], file_format, **FORMATS[file_format])
    crop = tf.function(lambda data, seed: random_resized_crop(data, (8, 8), (0.1, 0.2), seed))
    assert crop(tf.constant(file), tf.constant([0, 0])).shape == (8, 8, 3)
    # Whatever part is drawn, even one above the place where the file ends.
    for length in (0, 2, 20, len(file) // 2, len(file) * 3 // 4, len(file) - 40):
        for seed in range(4):
            with pytest.raises(tf.errors.InvalidArgumentError):
                crop(tf.constant(file[:length]), tf.constant([seed, 0]))


def test_not_an_image_and_too_many_pixels():
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="must be a JPEG, PNG, GIF, BMP or WebP"
    ):
        random_resized_crop(b"hello", (8, 8), (0.1, 1.0), (0, 0))
    file = bytearray(encoded(noise(), "JPEG"))
    frame = file.index(b"\xff\xc0")
    file[frame + 5 : frame + 9] = b"\xea\x60\xea\x60"  # 60,000 x 60,000
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"pixels\. Received: sides"):
        random_resized_crop(bytes(file), (8, 8), (0.1, 1.0), (0, 0))


def test_jpeg_with_bytes_after_its_end():
    file = encoded(ramp(), "JPEG")
    crops = [
        random_resized_crop(data, (64, 64), (1.0, 1.0), (0, 0), False)
        for data in (file, file + b"something else")
    ]
    np.testing.assert_array_equal(*crops)
