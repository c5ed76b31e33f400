"""Data that is damaged, changes or vanishes: it is named and counted, and the run goes on."""

import errno
import os
import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_crossvit.data import (
    InputConfig,
    evaluation_batches,
    open_source,
    pipeline,
    training_batches,
)
from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.tfrecord import index_shards, read_record

pytestmark = pytest.mark.slow

CONFIG = InputConfig(
    batch_size=4, augment="none", crop_area=(1.0, 1.0), horizontal_flip=False, label_smoothing=0.0
)
SHADE = 20  # image i has the shade 20 (i + 1), and the label i % 2


def png(number):
    pixels = np.full((4, 4, 3), SHADE * (number + 1), "uint8")
    return tf.io.encode_png(pixels).numpy()


@pytest.fixture
def shards(tmp_path):
    """The TFRecord files of a dataset "little" in `tmp_path`: two of four records each."""
    folder = tmp_path / "little" / "1.0.0"
    folder.mkdir(parents=True)
    image = tfds.features.Image(shape=(4, 4, 3), encoding_format="png")
    label = tfds.features.ClassLabel(num_classes=2)
    features = tfds.features.FeaturesDict({"image": image, "label": label})
    paths = [folder / f"little-train.tfrecord-{number:05}-of-00002" for number in range(2)]
    for number, path in enumerate(paths):
        write(path, features, range(4 * number, 4 * number + 4))
    split = tfds.core.SplitInfo(name="train", shard_lengths=[4, 4], num_bytes=0)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split]
    )
    return paths


def write(path, features, numbers):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            example = {"image": png(number), "label": number % 2}
            writer.write(features.serialize_example(example))


def open_little(shards):
    return open_source("little", shards[0].parents[2], validation_split="train").train


def good_rows(split):
    """The numbers, told by the shades, of the images that training and evaluation both get."""
    trained, evaluated = set(), set()
    for images, labels in training_batches(split, 2, (4, 4), CONFIG):
        trained |= numbers_of(images, labels.numpy().sum(1))
    for images, labels, weights in evaluation_batches(split, 2, (4, 4), 4, 1.0):
        np.testing.assert_array_equal(labels.numpy().sum(1), np.ones(4))
        evaluated |= numbers_of(images, weights.numpy())
    assert trained == evaluated
    return trained


def numbers_of(images, weights):
    shades = images.numpy()[:, 0, 0, 0]
    np.testing.assert_array_equal(shades > 0, weights == 1)  # a row that does not count is black
    return {int(shade) // SHADE - 1 for shade in shades[weights == 1]}


def skipped(caplog):
    """What the log says of each image that was left out; it counts them."""
    lines = [m for m in caplog.messages if m.startswith("skipped an image that cannot be read")]
    counts = [int(re.search(r"\((\d+) so far\)", line)[1]) for line in lines]
    assert counts == list(range(1, len(lines) + 1))
    return [line.partition(": ")[2] for line in lines]


def test_a_damaged_record_is_left_out(shards, caplog):
    content = bytearray(shards[1].read_bytes())
    content[-6] ^= 1  # in the data of the last record
    shards[1].write_bytes(content)
    assert good_rows(open_little(shards)) == set(range(7))
    (said,) = skipped(caplog)
    assert said.startswith("little train 7 (a checksum of record 3 of ")
    assert f"{shards[1]} is wrong" in said


def test_a_file_that_is_cut_off_loses_its_end(shards, caplog):
    shards[0].write_bytes(shards[0].read_bytes()[:-30])
    assert good_rows(open_little(shards)) == {0, 1, 2, 4, 5, 6, 7}
    assert f"{shards[0]} holds 3 of its 4 records" in caplog.messages
    assert skipped(caplog) == [f"little train 3 ({shards[0]} ends before record 3)"]


def test_a_file_that_changes_after_it_was_opened_is_left_out(shards, caplog):
    split = open_little(shards)
    shards[0].write_bytes(b"something else" * 100)
    assert good_rows(split) == {4, 5, 6, 7}
    reasons = {line.partition(" (")[2] for line in skipped(caplog)}
    assert reasons == {f"{shards[0]} was changed after it was indexed)"}
    caplog.clear()
    assert good_rows(open_little(shards)) == {4, 5, 6, 7}  # indexed again: it holds no record
    assert f"{shards[0]} was changed after it was indexed: indexing it again" in caplog.messages


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_vanishes_is_left_out(shards, caplog, when):
    if when == "after":
        split = open_little(shards)
    shards[1].unlink()
    if when == "before":
        split = open_little(shards)
        assert f"{shards[1]} holds 0 of its 4 records" in caplog.messages
    assert good_rows(split) == {0, 1, 2, 3}
    reason = "No such file or directory" if when == "after" else f"{shards[1]} ends before record"
    said = skipped(caplog)
    assert [line.split()[2] for line in sorted(said)] == ["4", "5", "6", "7"]
    assert all(f"({reason}" in line for line in said)


def test_of_very_many_only_the_first_are_named(shards, caplog, monkeypatch):
    monkeypatch.setattr(pipeline, "_MOST_NAMED", 2)
    split = open_little(shards)
    shards[0].write_bytes(b"something else")
    assert good_rows(split) == {4, 5, 6, 7}
    assert len(skipped(caplog)) == 2
    assert caplog.messages[-1] == "4 images that cannot be read were skipped so far"


def test_no_file_at_all_is_an_error(shards):
    for path in shards:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"`data_dir` must hold the data\. Received: no "):
        open_little(shards)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_an_image_file_that_vanishes_is_left_out(tmp_path, caplog, kind):
    split, paths = eight_files(tmp_path, kind)
    paths[5].unlink()
    assert good_rows(split) == {0, 1, 2, 3, 4, 6, 7}
    assert skipped(caplog) == [f"{paths[5]} (No such file or directory)"]


def test_an_empty_image_file_is_left_out(tmp_path, caplog):
    split, paths = eight_files(tmp_path, "folder")
    paths[2].write_bytes(b"")
    assert good_rows(split) == {0, 1, 3, 4, 5, 6, 7}
    assert skipped(caplog) == [f"{paths[2]} (the file is empty)"]


def eight_files(tmp_path, kind):
    """A split of eight image files, and their paths."""
    paths = [tmp_path / "train" / "ab"[number % 2] / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    rows = [f"{path},{path.parent.name}\n" for path in paths]
    (tmp_path / "table.csv").write_text("path,label\n" + "".join(rows))
    dataset = f"folder:{tmp_path}" if kind == "folder" else f"csv:{tmp_path / 'table.csv'}"
    return open_source(dataset, validation_split="train").train, paths


def test_an_index_that_cannot_be_written_goes_to_a_cache_folder(
    shards, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A folder with the index's name, since tests may run as a user who can write everywhere.
    (shards[0].parent / "keras_crossvit_record_index.npz" / "taken").mkdir(parents=True)
    first = index_shards([*map(str, shards)], [4, 4])
    (cached,) = (tmp_path / "cache" / "keras_crossvit").iterdir()
    (said,) = caplog.messages
    assert said.startswith(f"the index of records is kept in {cached}: {shards[0].parent}")
    written = cached.stat().st_mtime_ns
    caplog.clear()
    again = index_shards([*map(str, shards)], [4, 4])
    assert (caplog.messages, cached.stat().st_mtime_ns) == ([], written)  # nothing is done again
    assert read_record(again[1], 2) == read_record(first[1], 2)

    monkeypatch.setenv("XDG_CACHE_HOME", str(shards[0]))  # not a folder: nothing can be written
    split = open_little(shards)
    assert "the index of records is not kept, since neither " in caplog.messages[-1]
    assert good_rows(split) == set(range(8))


def test_an_index_in_the_cache_is_newer_than_one_beside_the_data(
    shards, tmp_path, monkeypatch, caplog
):
    """The data were indexed, renewed, and can then no longer be written to."""
    paths = [*map(str, shards)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index_shards(paths, [4, 4])
    os.utime(shards[0], (1, 1))
    write = storage.write

    def refuse(path, content):
        if path.startswith(str(shards[0].parent)):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        write(path, content)

    monkeypatch.setattr(storage, "write", refuse)
    index_shards(paths, [4, 4])
    assert f"{shards[0]} was changed after it was indexed: indexing it again" in caplog.messages
    caplog.clear()
    assert [len(shard.offsets) for shard in index_shards(paths, [4, 4])] == [5, 5]
    assert not caplog.messages
