"""Decoding and the evaluation transform: pixel by pixel what PIL and timm make of a file."""

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.exif import read_orientation
from keras_crossvit.data.images import (
    decode,
    evaluation_transform,
    read_images,
)
from keras_crossvit.data.random_crop import random_resized_crop
from tests.data_room.image_files import decoded, encoded, noise, photo, transformed


@pytest.fixture(scope="module")
def graph_decode():
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [("JPEG", mode) for mode in ("RGB", "L", "CMYK")]
    + [("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")]
    + [("GIF", mode) for mode in ("RGB", "L", "P", "1")]
    + [("BMP", mode) for mode in ("RGB", "RGBA", "L", "P")],
)
def test_decode_is_pil(graph_decode, file_format, mode):
    file = encoded(noise(channels=4 if mode in ("RGBA", "LA") else 3), file_format, mode)
    pixels = graph_decode(file).numpy()
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, decoded(file))


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("JPEG", "RGB", {"progressive": True, "subsampling": 2}),
        ("PNG", "P", {"transparency": 3}),
        ("GIF", "P", {"transparency": 3}),
        ("GIF", "P", {"interlace": 1, "comment": b"x" * 700}),
    ],
)
def test_decode_of_variants(graph_decode, file_format, mode, options):
    file = encoded(noise(), file_format, mode, **options)
    np.testing.assert_array_equal(graph_decode(file), decoded(file))


def test_sixteen_bits_keep_the_upper_eight(graph_decode):
    grey = np.random.default_rng(0).integers(0, 2**16, (9, 7), dtype="uint16")
    pixels = graph_decode(encoded(grey, "PNG", "I;16")).numpy()
    np.testing.assert_array_equal(pixels, np.repeat((grey >> 8)[..., None], 3, axis=-1))


def test_animation_gives_its_first_frame(graph_decode):
    from PIL import Image

    frames = [Image.fromarray(noise(seed=seed)).convert("P") for seed in range(4)]
    file = encoded(noise(seed=0), "GIF", "P", save_all=True, append_images=frames[1:], duration=50)
    pixels = graph_decode(file).numpy()
    np.testing.assert_array_equal(pixels, frames[0].convert("RGB"))


def test_bmp_from_top_to_bottom_and_with_masks(graph_decode):
    pixels = noise()
    file = bytearray(encoded(pixels, "BMP"))
    file[22:26] = (-21).to_bytes(4, "little", signed=True)
    np.testing.assert_array_equal(graph_decode(bytes(file)), pixels[::-1])

    file = encoded(noise(channels=4), "BMP", "RGBA")
    header = bytearray(file[:54])
    header[10:14] = (66).to_bytes(4, "little")
    header[30:34] = (3).to_bytes(4, "little")  # bit fields
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xFF0000, 0xFF00, 0xFF))
    with_masks = bytes(header) + masks + file[54:]
    np.testing.assert_array_equal(graph_decode(with_masks), decoded(file))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a BMP must be uncompressed"):
        graph_decode(bytes(header) + masks[::-1] + file[54:])


SIZES = [
    *((8, 8), (13, 57), (333, 501), (301, 200), (240, 240), (274, 301), (31, 32)),
    *((90, 900), (900, 90)),
    (63, 42),  # at (32, 24) and 0.875 the height becomes 40.5, and so 40, or 41 by a rounding
]


def test_files_given_as_bytes_are_not_traced_one_by_one():
    """A graph function that is given bytes as they are is traced anew for each value."""
    crop = {"size": (8, 8), "area": (0.5, 1.0), "seed": (0, 1)}
    counts = []
    for seed in range(3):
        file = encoded(noise(20, 20, seed=seed), "JPEG")
        np.testing.assert_array_equal(decode(file), decoded(file))
        random_resized_crop(file, **crop)
        counts.append(read_orientation.experimental_get_tracing_count())
    assert counts[0] == counts[-1]


@pytest.mark.parametrize(
    ("size", "crop_ratio"),
    [
        ((240, 240), 0.875),
        ((408, 408), 1.0),
        ((32, 32), 1.0),
        ((192, 288), 0.875),
        ((32, 24), 0.875),
        ((40, 40), 0.9),
    ],
)
def test_evaluation_transform_is_timms(size, crop_ratio):
    transform = tf.function(
        lambda image: evaluation_transform(image, size, crop_ratio),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    for pixels in [photo(), *(noise(*shape) for shape in SIZES)]:
        ours, theirs = transform(pixels).numpy(), transformed(pixels, size, crop_ratio)
        assert ours.shape == (*size, 3)
        assert ours.dtype == np.float32
        difference = np.abs(ours - theirs)
        # Out of 255. PIL computes in fixed point, so a few pixels round the other way.
        assert difference.max() <= 2, pixels.shape
        assert difference.mean() < 0.01, pixels.shape


def test_rows_beside_the_crop_count_as_far_as_the_kernel_reaches():
    bars = np.zeros((600, 300, 3), "uint8")
    bars[np.arange(600) // 9 % 2 == 1] = 255
    ours = evaluation_transform(bars, (32, 32), 0.5)
    np.testing.assert_array_equal(ours, transformed(bars, (32, 32), 0.5))


def test_same_size_is_left_alone():
    pixels = noise(32, 32)
    np.testing.assert_array_equal(evaluation_transform(pixels, (32, 32), 1.0), pixels)


def test_thin_images():
    """One pixel high and very wide: only the crop is computed, whatever the resized width."""
    pixels = np.tile(np.arange(20_001, dtype="uint8")[None, :, None], (1, 1, 3))
    result = evaluation_transform(pixels, (40, 40), 1.0).numpy()
    assert np.ptp(result) == 0
    assert result[0, 0, 0] == pixels[0, 10_000, 0]


def test_thin_and_high_images():
    """The other way round: the rows that the crop leaves out are not resized first."""
    import resource

    pixels = np.tile(np.arange(400_001, dtype="uint32")[:, None, None] % 251, (1, 1, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the peak so far, in kB
    result = evaluation_transform(pixels.astype("uint8"), (240, 240), 1.0).numpy()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - before < 100_000  # with all rows: 1.1 million
    assert np.ptp(result) == 0
    assert result[0, 0, 0] == pixels[200_000, 0, 0]


@pytest.mark.parametrize("crop_ratio", [0, -0.5, 1.01])
def test_crop_ratio_out_of_range(crop_ratio):
    with pytest.raises(ValueError, match=r"`crop_ratio` must be a number in \(0, 1\]. Received:"):
        evaluation_transform(noise(), (32, 32), crop_ratio)


def test_default_crop_ratio():
    assert crop_ratio_for((408, 408)) == 1.0
    assert crop_ratio_for((240, 240)) == 0.875
    assert crop_ratio_for((408, 408), 0.5) == 0.5


def test_read_images():
    files = [encoded(noise(seed=seed), "PNG") for seed in range(6)]
    files[0] = files[3] = b"not an image"
    pixels, readable = tf.function(lambda files: read_images(files, (24, 24), 0.75))(
        tf.constant(files)
    )
    assert readable.numpy().tolist() == [False, True, True, False, True, True]
    for row in range(6):
        expected = np.zeros((24, 24, 3)) if row in (0, 3) else None
        if expected is None:
            expected = evaluation_transform(noise(seed=row), (24, 24), 0.75)
        np.testing.assert_array_equal(pixels[row], expected)


def test_read_images_in_grey():
    """By their luminance."""
    file = encoded(np.full((8, 8, 3), (10, 200, 30), "uint8"), "PNG")
    pixels, _ = read_images(tf.constant([file]), (8, 8, 1), 1.0)
    wanted = np.full((1, 8, 8, 1), 0.2989 * 10 + 0.587 * 200 + 0.114 * 30)
    np.testing.assert_allclose(pixels, wanted, rtol=1e-4)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_are_read_in_grey_or_in_colour(channels):
    with pytest.raises(ValueError, match=rf"`size` must be of 1 or 3 .*size=\(8, 8, {channels}\)"):
        read_images(tf.constant([b""]), (8, 8, channels))


@pytest.mark.parametrize("files", [[], [b""], [b"no", b"image"]])
def test_read_images_without_an_image(files):
    pixels, readable = read_images(tf.constant(files, tf.string), (24, 20))
    assert pixels.shape == (len(files), 24, 20, 3)
    assert not pixels.numpy().any()
    assert readable.numpy().tolist() == [False] * len(files)
