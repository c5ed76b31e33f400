"""Files that only TensorFlow's file systems reach: here the one in memory, `ram://`."""

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.sources import open_source, storage
from keras_crossvit.data.sources.tfrecord import index_shards, read_record


def test_parts_of_a_remote_file():
    path = "ram://storage/parts/file"
    storage.write(path, b"0123456789")
    assert storage.read(path) == b"0123456789"
    assert storage.read_range(path, 3, 4) == b"3456"
    assert storage.read_range(path, 8, 4) == b"89"
    assert storage.stat(path)[0] == 10
    for missing in ("ram://storage/none", "/no/such/file"):
        for read in (storage.read, storage.stat, lambda path: storage.read_range(path, 0, 1)):
            with pytest.raises(FileNotFoundError):
                read(missing)


def test_records_of_remote_files_and_their_index():
    paths = [f"ram://storage/records/{name}.tfrecord" for name in "ab"]
    for path in paths:
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(3):
                writer.write(path[-10].encode() * number)
    assert read_record(index_shards(paths, [3, 3])[1], 2) == b"bb"
    names = tf.io.gfile.listdir("ram://storage/records")
    assert sorted(names) == ["a.tfrecord", "b.tfrecord", "keras_crossvit_record_index.npz"]
    assert read_record(index_shards(paths, [3, 3])[0], 1) == b"a"


def test_a_remote_folder():
    for number in range(4):
        pixels = np.full((4, 4, 3), 10 * number, "uint8")
        folder = f"ram://storage/images/train/{'ab'[number % 2]}"
        tf.io.gfile.makedirs(folder)
        storage.write(f"{folder}/{number}.png", tf.io.encode_png(pixels).numpy())
    source = open_source("folder:ram://storage/images", validation_split="train")
    assert source.class_names == ("a", "b")
    names, images, labels = source.train.read([3, 0])
    assert names == [f"ram://storage/images/train/{end}" for end in ("b/3.png", "a/0.png")]
    assert [int(tf.io.decode_png(image)[0, 0, 0]) for image in images] == [30, 0]
    np.testing.assert_array_equal(labels, [1, 0])
    tf.io.gfile.remove(names[0])
    names, images, labels = source.train.read([3, 2])
    assert images[0] == b""
    assert names[0].startswith("ram://storage/images/train/b/3.png (")
    np.testing.assert_array_equal(labels, [0, 1])
