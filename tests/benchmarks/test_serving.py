"""What `measure_serving` reports; not how fast it is."""

import importlib.util

import pytest

from benchmarks import serving
from tests import base
from tests.export.helpers import picture

pytestmark = pytest.mark.slow


def test_report():
    model = base.small_model(base.small_config(num_stages=1))
    file = picture()
    report = serving.measure_serving(model, concurrency=(1, 3), requests=4, image_bytes=file)
    assert report["picture_bytes"] == len(file)
    assert report["decode_ms"] > 0
    assert report["decode_share"] > 0
    assert set(report["clients"]) == {1, 3}
    for times in report["clients"].values():
        assert 0 < times["p50_ms"] <= times["p95_ms"] <= times["p99_ms"]
        assert times["images_per_second"] > 0


def test_every_client_sends_its_share(monkeypatch):
    """Ten requests by four clients: each sends once untimed, then two or three timed."""
    sent = []

    def client(address, request):
        name = len(sent)
        sent.append(0)

        def ask():
            sent[name] += 1

        return ask

    monkeypatch.setattr(serving, "_client", client)
    times = serving._load("address", None, clients=4, requests=10)
    assert sorted(sent) == [3, 3, 4, 4]
    assert times["images_per_second"] > 0


def test_synthetic_photograph():
    import tensorflow as tf

    file = serving._photograph()
    assert tf.io.decode_jpeg(file).shape == (480, 640, 3)
    assert 90_000 < len(file) < 130_000


def test_without_the_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow_serving" else find(name),
    )
    with pytest.raises(ImportError, match=r"measure_serving needs tensorflow_serving: pip.*runti"):
        serving.measure_serving(None)
