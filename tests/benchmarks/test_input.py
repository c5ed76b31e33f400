"""What becomes of the input pipeline's figures, and of a timm that fails."""

from benchmarks import input as benchmark
from tests.benchmarks import processes


def test_timm_fails_and_ours_is_measured(monkeypatch, capfd):
    monkeypatch.setattr(benchmark, "_our_batches", processes.fast)
    monkeypatch.setattr(benchmark, "_timm_batches", processes.is_killed_in_the_second_turn)
    assert benchmark.measure_input(32, 4, repeats=2) == {
        "images_per_second_per_core": 2.0,
        "timm_images_per_second_per_core": None,
        "ratio": None,
        "ratios": None,
        "size": 32,
        "batch_size": 4,
    }
    assert "(32, 4) failed: its process ended" in capfd.readouterr().err
