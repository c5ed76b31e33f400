"""The version folder: what it holds, and that it appears whole or not at all."""

import threading
import types

import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.export import saved_model, versions
from tests.export.helpers import LABELS


def test_what_it_holds(export):
    assert export.name == "1"
    assert sorted(path.name for path in export.parent.iterdir()) == ["1"]
    assert (export / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
    assert (export / "saved_model.pb").is_file()
    assert export.stat().st_mode & 0o755 == 0o755  # the server runs as another user


def test_the_models_own_names_are_told_apart():
    """As `crossvit predict` does; names that are given stay as they are."""
    model = types.SimpleNamespace(labels=tuple(LABELS), classes=5)
    own = versions.class_names(model, None)
    assert own == ["tench", "crane (1)", "Äffchen", "crane (3)", "a b"]
    assert versions.class_names(model, LABELS) == LABELS


def test_warmup_requests(export, signatures):
    messages = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = tf.data.TFRecordDataset(str(export / "assets.extra/tf_serving_warmup_requests"))
    seen = set()
    for record in records.as_numpy_iterator():
        log = messages.PredictionLog.FromString(record)
        assert log.SerializeToString(deterministic=True) == record  # no unknown fields
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        assert all(len(value) == 1 for value in answer.values())
        if "scores" in answer:
            assert answer["indices"].numpy().min() >= 0  # the image was read
        seen.add(request.model_spec.signature_name)
    assert seen == {"serving_default", "classify_bytes", "features"}


def test_failure_leaves_nothing(classifier, tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"older")

    def fail(folder, *arguments):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"half")
        # What a server sees meanwhile: no new version.
        assert [path.name for path in tmp_path.iterdir() if path.name.isdecimal()] == ["1"]
        raise OSError("disk full")

    monkeypatch.setattr(saved_model, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        kc.export_saved_model(classifier, tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "1",
        "1/saved_model.pb",
    ]
    assert (tmp_path / "1" / "saved_model.pb").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("taken", "version"),
    [([], "1"), (["1", "2"], "3"), (["007", "x", "2"], "8"), (["9"], "10")],
)
def test_next_version(tmp_path, taken, version):
    for name in taken:
        (tmp_path / name).mkdir()
    written = tmp_path / ".export-a"
    written.mkdir()
    (written / "file").write_text("a")
    assert versions.publish(written, tmp_path) == tmp_path / version
    assert (tmp_path / version / "file").read_text() == "a"
    assert all((tmp_path / name).is_dir() for name in taken)


def test_exporters_at_once(tmp_path):
    """Twenty that all look for the next number at the same time each get one."""
    start = threading.Barrier(20)

    def publish(index):
        written = tmp_path / f".export-{index}"
        written.mkdir()
        (written / "file").write_text(str(index))
        start.wait()
        versions.publish(written, tmp_path)

    threads = [threading.Thread(target=publish, args=[index]) for index in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, 21))
    texts = {(path / "file").read_text() for path in tmp_path.iterdir()}
    assert texts == {str(index) for index in range(20)}
