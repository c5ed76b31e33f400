"""TensorFlow datasets that are not what the package reads."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_crossvit.data.images import decode
from keras_crossvit.data.sources import open_source

FEATURES = tfds.features
IMAGE = FEATURES.Image(shape=(4, 4, 1), encoding_format="png")
LABEL = FEATURES.ClassLabel(num_classes=2)
FLOATS = FEATURES.Image(shape=(4, 4, 1), dtype=np.float32, encoding_format="png")


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (FLOATS, LABEL, r"`image` that .* image=Image\(shape=\(4, 4, 1\), dtype=float32\)$"),
        (FEATURES.Tensor(shape=(4, 4, 3), dtype=np.uint8), LABEL, r"`image` that .*=Tensor\("),
        (FEATURES.Video(shape=(2, 4, 4, 3)), LABEL, r"`image` that is an Image .*=Video\("),
        (IMAGE, FEATURES.Scalar(np.int64), r"`label` that is a ClassLabel .*label=Scalar\("),
        (IMAGE, FEATURES.Text(), r"`label` that is a ClassLabel .*label=Text\("),
        (IMAGE, FEATURES.Tensor(shape=(2,), dtype=np.float32), r"`label` that .*=Tensor\("),
        (IMAGE, FEATURES.Sequence(LABEL), r"`label` that is .*label=Sequence\(ClassLabel\("),
        (IMAGE, FEATURES.FeaturesDict({"a": LABEL}), r"`label` that .*label=FeaturesDict\("),
        (IMAGE, FEATURES.ClassLabel(), r"`label` that is .*num_classes=None\)$"),
    ],
)
def test_features_of_another_kind(monkeypatch, image, label, message):
    features = FEATURES.FeaturesDict({"image": image, "label": label})
    info = types.SimpleNamespace(features=features)
    builder = types.SimpleNamespace(info=info, download_and_prepare=lambda: None)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: builder)
    with pytest.raises(ValueError, match=f"^`dataset` must have a feature {message}") as error:
        open_source("little")
    assert "\n" not in str(error.value)


def test_data_that_another_process_has_just_prepared_are_taken(tmp_path, monkeypatch):
    """Both prepare them aside, and one of the two finds the folder there."""
    builder = tfds.builder

    class Late:
        def download_and_prepare(self):
            open_source("digits", tmp_path)
            raise FileExistsError

    builders = iter([Late(), None, None])
    monkeypatch.setattr(tfds, "builder", lambda *x, **y: next(builders) or builder(*x, **y))
    assert open_source("digits", tmp_path).train.size == 1438


def test_images_of_16_bits_are_read_by_their_upper_8(tmp_path):
    """Like those of a folder."""
    image = FEATURES.Image(shape=(4, 4, 1), dtype=np.uint16, encoding_format="png")
    features = FEATURES.FeaturesDict({"image": image, "label": LABEL})
    pixels = np.full((4, 4, 1), 200 * 256 + 255, "uint16")
    folder = tmp_path / "little" / "1.0.0"
    folder.mkdir(parents=True)
    path = folder / "little-train.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        example = features.encode_example({"image": pixels, "label": 1})
        writer.write(features.serialize_example(example))
    split = tfds.core.SplitInfo(name="train", shard_lengths=[1], num_bytes=0)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split]
    )
    found = open_source("little", tmp_path, validation_split="train").train.read([0])
    np.testing.assert_array_equal(decode(found.images[0]), np.full((4, 4, 3), 200))
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("train[90:10]", "it ends before it begins"),
        ("train[90:89]", "it ends before it begins"),  # otherwise 1,348 records
        ("train[90%:10%]+train", "it ends before it begins"),  # otherwise a sum of 288 records
        ("train[:x]", "Error parsing split"),
        ("train[5000:]", "Requested slice"),
    ],
)
def test_a_part_that_cannot_be(part, reason):
    message = re.escape(f" or a sum. Received: train_split={part!r}: {reason}")
    with pytest.raises(ValueError, match=f"^`train_split` must name .*{message}") as error:
        open_source("digits", train_split=part, validation_split="test")
    assert "\n" not in str(error.value)


def test_what_has_to_be_downloaded_by_hand(tmp_path):
    with pytest.raises(ValueError, match="`dataset` must be downloaded by hand") as error:
        open_source("imagenet2012", tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert f"to {tmp_path / 'downloads' / 'manual'}, " in message
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar." in message
    assert "Received: dataset='imagenet2012', data_dir=" in message
