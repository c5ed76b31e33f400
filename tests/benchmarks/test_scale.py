"""The figures for data at scale, here at a small size."""

import tempfile

import numpy as np
import pytest

from benchmarks import scale

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(scale, "_IMAGENET", 10_000)
        found = scale.measure_scale(records=1000, workers=2)
    assert not any(path.is_dir() for path in folder.iterdir())  # the dataset is gone
    return found


def test_each_worker_reads_its_share_and_nothing_else(figures):
    record = figures["training"][1]["mb"][0] / 1000
    assert 0.0001 < record < 0.0002
    for what in ("training", "evaluation"):
        (whole,), halves = (figures[what][workers]["mb"] for workers in (1, 2))
        assert whole == pytest.approx(1000 * record, abs=0.001)
        assert halves == pytest.approx([whole / 2] * 2, abs=0.001)


def test_a_run_that_resumes_reads_no_more_than_one_that_begins(figures):
    start, end = (figures["first_batch"][name]["mb"] for name in ("start", "end"))
    ahead = 8 * 32 + 3 * figures["batch_size"]  # rows of the chunks and batches read ahead
    record = figures["training"][1]["mb"][0] / 1000
    assert 100 * record - 0.001 <= min(start, end)
    assert max(start, end) <= ahead * record


def test_the_order_is_another_permutation_in_each_epoch(figures):
    assert figures["distinct_images_of_one_epoch_with_3_repeats"] == 334
    both = figures["distinct_images_of_two_epochs_with_3_repeats"]
    assert both == pytest.approx(1000 * 5 / 9, rel=0.1)
    assert abs(figures["rank_correlation"]) < 3 / np.sqrt(1000)
    # 100 labels drawn from 1,000 images, 10 with each label: 5.94 bits on average.
    for bits in figures["entropy_of_a_batch_bits"].values():
        assert 5.7 < bits < 6.2
    assert len(set(figures["entropy_of_a_batch_bits"].values())) == 1


def test_order_and_paths_are_kept_once(figures):
    order, paths = figures["order_of_imagenet_mb"], figures["paths_of_imagenet_mb"]
    assert order["kept"] == pytest.approx(0.16, abs=0.06)  # two permutations, 8 bytes per number
    assert 10_000 * len("n00000000/n00000000_0.JPEG") / 1e6 < paths["kept"] < 0.6


def test_the_table_holds_the_figures(figures):
    lines = scale.to_markdown(figures).splitlines()
    assert lines[0] == "|  | 1 worker | 2 workers |"
    assert lines[2].endswith("| 334 | the same order |")
    halves = figures["training"][2]["mb"]
    assert f"| {halves[0]}" in next(line for line in lines if "worker, training" in line)
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("records", "workers", "message"),
    [(79, 2, "`records` must be at least 40 for each of the 2"), (99, 0, "`workers` must be")],
)
def test_too_few_records_are_refused(records, workers, message):
    with pytest.raises(ValueError, match=message):
        scale.measure_scale(records, workers)
