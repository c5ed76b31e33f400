"""Splits: a size, and access to images by number."""

import numpy as np
import pytest

from keras_crossvit.data.sources import MemorySplit, Source, open_source
from keras_crossvit.data.sources.splits import PartOfSplit, RenumberedSplit


def test_a_part_without_images():
    source = open_source("digits", train_split="train[:0%]", validation_split="test[:5]")
    assert (source.train.size, source.validation.size) == (0, 5)
    assert len(source.train.labels()) == 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([b"a"], [0, 1], "the same length. Received: 1 images, 2 labels, 1 names"),
        ([np.zeros((4, 4, 3), "uint8")], [0], "as bytes. Received also: ndarray"),
        ([b"a", 7], [0, 1], "as bytes. Received also: int"),
        ([b"a"], [1.7], "`labels` must be integers, .* Received: an array of float64"),
        ([b"a"], ["ant"], "`labels` must be integers, .* Received: an array of <U3"),
        ([b"a"], [[1.0, 0.7]], r"or rows of zeros and ones\. Received also: 0\.7"),
        ([b"a"], [[2, 1]], r"or rows of zeros and ones\. Received also: 2"),
        ([b"a", b"b"], [[1, 0], [0, 0]], r"must have a 1 in each row: .* none in row 1"),
    ],
)
def test_what_images_in_memory_must_be(images, labels, message):
    with pytest.raises(ValueError, match=message):
        MemorySplit(images, labels)


def test_names_in_memory_must_be_text():
    with pytest.raises(ValueError, match=r"`names` must be strings or paths\. Received also: 7"):
        MemorySplit([b"a", b"b"], [0, 1], ["a", 7])


@pytest.mark.parametrize(
    ("labels", "dtype"), [([True, False], "int64"), ([[True, False], [False, True]], "float32")]
)
def test_labels_in_memory_are_numbers_as_they_are_read(labels, dtype):
    """Truth values would choose rows where numbers name classes."""
    split = MemorySplit([b"a", b"b"], labels)
    source = Source("mine", ("ant", "bee"), split, split).with_classes(["bee", "cow", "ant"])
    for part in (split, source.validation):
        assert part.labels().dtype == dtype
        np.testing.assert_array_equal(part.labels(), part.read([0, 1]).labels)


def test_no_label_stays_none():
    """-1 means "no label" to tensorflow-datasets; it is not the last class."""
    split = MemorySplit([b"a", b"b", b"c"], [-1, 0, 1])
    source = Source("mine", ("ant", "bee"), split, split).with_classes(["bee", "cow", "ant"])
    np.testing.assert_array_equal(source.validation.labels(), [-1, 2, 0])
    np.testing.assert_array_equal(source.validation.read([2, 0]).labels, [0, -1])


def test_a_digest_tells_other_labels_and_not_what_holds_the_images():
    swapped = MemorySplit([b"a", b"b"], [1, 0]).digest()
    assert swapped != MemorySplit([b"a", b"b"], [0, 1]).digest()
    part = PartOfSplit(MemorySplit([b"a", b"b"], [1, 0]), np.arange(2))
    assert RenumberedSplit(part, np.arange(2), 2).digest() == swapped
    assert max(MemorySplit([b"a"], [n]).digest() for n in range(9)) < 2**31  # as JAX takes it


def test_a_digest_of_names_from_all_over():
    """Of several labels they alone count, and on Windows paths are the same."""
    images, labels = [b"a"] * 3000, [[1, 0]] * 3000
    digests = [
        MemorySplit(images, given, [*["a/b"] * 2999, last]).digest()
        for given, last in ((labels, "a/b"), (labels, "a\\b"), (labels, "a/c"))
    ]
    assert digests[0] == digests[1] != digests[2]
    assert MemorySplit(images, [[1, 1]] * 3000, ["a/b"] * 3000).digest() == digests[0]
