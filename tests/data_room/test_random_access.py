"""What random access promises: full permutations, own rows only, and nothing read twice."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import InputConfig, evaluation_batches, training_batches
from keras_crossvit.data.order import EpochOrder, permutation
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import MemorySplit, storage
from keras_crossvit.data.sources.tfrecord import index_shards, read_record

pytestmark = pytest.mark.slow

CONFIG = InputConfig(
    epochs=2, batch_size=8, augment="none", crop_area=(1.0, 1.0), label_smoothing=0.0
)
IMAGE = tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy()


class Counted(MemorySplit):
    """A split of black images that records which of them are read."""

    def __init__(self, count):
        super().__init__([IMAGE] * count, np.arange(count) % 10)
        self.loaded = []

    def load(self, index):
        self.loaded.append(index)
        return super().load(index)


def test_an_epoch_is_a_permutation_that_its_seed_and_number_decide():
    orders = [permutation(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(orders[1], permutation(1000, 0, 1))
    assert permutation(12, 3, 5).tolist() == [0, 6, 2, 1, 3, 4, 7, 10, 8, 11, 5, 9]
    large = [permutation(100_000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    correlations = np.abs(np.corrcoef(large) - np.eye(4))
    # Three standard deviations of the correlation of independent orders.
    assert correlations.max() < 3 / np.sqrt(100_000)


def test_a_sorted_source_is_mixed_over_all_of_an_epoch():
    labels = np.sort(np.arange(100_000) % 100)
    batch = labels[EpochOrder(100_000, 100_000, seed=3)(np.arange(4096))]
    shares = np.bincount(batch, minlength=100) / 4096
    entropy = -(shares * np.log2(shares)).sum()
    assert entropy > 6.6  # of 6.64 bits


def test_repeated_augmentation_takes_another_third_in_each_epoch():
    order = EpochOrder(9000, 9000, seed=0, repeats=3)
    epochs = [order(np.arange(9000) + 9000 * epoch) for epoch in range(2)]
    for epoch in epochs:
        images, counts = np.unique(epoch, return_counts=True)
        assert len(images) == 3000
        assert set(counts) == {3}
        np.testing.assert_array_equal(epoch[::3], epoch[2::3])  # one after the other
    both = len(np.union1d(*epochs))
    assert both == pytest.approx(9000 * 5 / 9, rel=0.02)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_worker_reads_its_own_rows_alone(workers):
    read = []
    for worker in range(workers):
        split = Counted(32)
        batches = training_batches(split, 10, (4, 4), CONFIG, Shard(worker, workers, 1)).take(4)
        assert sum(len(images) for images, _ in batches) == 32 // workers
        read.append(split.loaded)
    first_epoch = sorted(row for rows in read for row in rows[: 32 // workers])
    assert first_epoch == list(range(32))
    assert max(map(len, read)) <= 64 // workers


@pytest.mark.parametrize("workers", [1, 4])
def test_evaluation_reads_each_image_on_one_worker(workers):
    read = []
    for worker in range(workers):
        split = Counted(30)
        shard = Shard(worker, workers, 1)
        batches = evaluation_batches(split, 10, (4, 4), 8, 1.0, shard)
        weights = np.concatenate([weights for _, _, weights in batches])
        assert weights.sum() == len(split.loaded)
        read += split.loaded
    assert sorted(read) == list(range(30))


def test_a_run_that_goes_on_reads_nothing_of_what_was():
    config = dataclasses.replace(CONFIG, epochs=100)
    whole, rest = Counted(80), Counted(80)
    every = [labels for _, labels in training_batches(whole, 10, (4, 4), config).take(995)]
    ending = training_batches(rest, 10, (4, 4), config, first_step=990)
    for ours, theirs in zip(ending.take(5), every[990:], strict=True):
        np.testing.assert_array_equal(ours[1], theirs)
    assert len(rest.loaded) <= 80  # ten steps of the run are left


@pytest.fixture
def shards(tmp_path):
    """Two TFRecord files of five records each; the data of record i is the letter, i times."""
    paths = [str(tmp_path / f"{name}.tfrecord") for name in "ab"]
    for path, letter in zip(paths, (b"a", b"b"), strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(5):
                writer.write(letter * number)
    return paths


def test_records_are_found_by_their_number(shards, tmp_path):
    first = index_shards(shards, [5, 5])
    assert read_record(first[0], 3) == b"aaa"
    assert read_record(first[1], 4) == b"bbbb"
    written = {path.name for path in tmp_path.iterdir()} - {"a.tfrecord", "b.tfrecord"}
    assert len(written) == 1  # the index
    again = index_shards(shards, [5, 5])
    for before, now in zip(first, again, strict=True):
        assert before.path == now.path
        np.testing.assert_array_equal(before.offsets, now.offsets)


def test_a_file_that_changed_is_indexed_again(shards):
    index_shards(shards, [5, 5])
    with tf.io.TFRecordWriter(shards[1]) as writer:
        for _ in range(5):
            writer.write(b"other")
    assert read_record(index_shards(shards, [5, 5])[1], 2) == b"other"


@pytest.mark.parametrize("rest", [0, 5])  # bytes of record 3, whose header has 12
def test_a_file_that_is_cut_while_it_is_indexed_keeps_the_records_before(
    shards, monkeypatch, caplog, rest
):
    stat = storage.stat

    def stat_before_the_cut(path):
        found = stat(path)
        if path == shards[0]:
            os.truncate(path, 51 + rest)
        return found

    monkeypatch.setattr(storage, "stat", stat_before_the_cut)
    first, second = index_shards(shards, [5, 5])
    assert first.offsets.tolist() == [0, 16, 33, 51]
    assert len(second.offsets) == 6
    assert "a.tfrecord holds 3 of its 5 records" in caplog.text
    assert read_record(first, 2) == b"aa"
    with pytest.raises(OSError, match=r"a\.tfrecord ends before record 3"):
        read_record(first, 3)


def test_an_index_beside_the_data_may_be_older_than_that_in_the_cache(
    shards, tmp_path, monkeypatch, caplog
):
    """Whoever changed the data could write there; who reads them now cannot."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index_shards(shards, [5, 5])
    with tf.io.TFRecordWriter(shards[1]) as writer:
        writer.write(b"other")
    write = storage.write

    def write_elsewhere(path, content):
        if str(tmp_path / "cache") not in path:
            raise PermissionError(13, "Permission denied")
        write(path, content)

    monkeypatch.setattr(storage, "write", write_elsewhere)
    index_shards(shards, [5, 1])
    assert "b.tfrecord was changed after it was indexed" in caplog.text
    caplog.clear()
    assert read_record(index_shards(shards, [5, 1])[1], 0) == b"other"
    assert not caplog.messages  # nothing was indexed again


@pytest.mark.parametrize("damage", [lambda index: b"", lambda index: index[:40], lambda _: b"PK"])
def test_a_damaged_index_is_made_again(shards, tmp_path, damage):
    index_shards(shards, [5, 5])
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert read_record(index_shards(shards, [5, 5])[1], 4) == b"bbbb"
    assert path.read_bytes() == whole


def test_what_cannot_be_read_says_why(shards):
    index = index_shards(shards, [5, 5])
    with open(shards[0], "r+b") as file:
        file.seek(-6, 2)  # in the data of the last record
        file.write(b"x")
    with pytest.raises(OSError, match=r"a\.tfrecord was changed after it was indexed"):
        read_record(index[0], 4)
    assert read_record(index[0], 3) == b"aaa"
    damaged = index_shards(shards, [5, 5])
    with pytest.raises(OSError, match=r"a checksum of record 4 of .*a\.tfrecord is wrong"):
        read_record(damaged[0], 4)
    with pytest.raises(OSError, match=r"b\.tfrecord ends before record 5"):
        read_record(damaged[1], 5)
