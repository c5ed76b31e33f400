"""The SavedModel: its signatures by value, its folder, and a process without Keras."""

import io
import json
import pathlib
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_crossvit as kc
from keras_crossvit.data.images import decode, evaluation_transform
from keras_crossvit.export import saved_model, warmup
from tests import base

LABELS = ["tench", "crane", "Äffchen", "crane", "a b"]  # names may repeat, as ImageNet's do


@pytest.fixture(scope="module")
def classifier():
    return base.small_model(drop_rate=0.2)


@pytest.fixture(scope="module")
def export(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space")
    return kc.export_saved_model(classifier, folder / "model", LABELS, top_k=3)


@pytest.fixture(scope="module")
def signatures(export):
    return tf.saved_model.load(export).signatures


def picture(seed=0, file_format="PNG", height=50, width=70):
    """The bytes of a picture file."""
    file = io.BytesIO()
    pixels = base.pixels(1, height, width, seed=seed)[0].astype("uint8")
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def probabilities(model, files, crop_ratio=0.875):
    """What the Keras model says to picture files."""
    size = model.input_shape[1:3]
    images = [evaluation_transform(decode(file), size, crop_ratio) for file in files]
    return model.predict(np.stack(images), verbose=0)


class TestSignatures:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_serving_default(self, classifier, signatures, batch):
        images = base.pixels(batch)
        answer = signatures["serving_default"](images=images)
        assert list(answer) == ["probabilities"]
        np.testing.assert_allclose(
            answer["probabilities"], classifier.predict(images, verbose=0), atol=1e-6
        )

    def test_features(self, classifier, signatures):
        images = base.pixels()
        norms = [classifier.get_layer(f"{branch}_norm").output for branch in ("small", "large")]
        small, large = keras.Model(classifier.input, norms).predict(images, verbose=0)
        answer = signatures["features"](images=images)
        assert list(answer) == ["features"]
        np.testing.assert_allclose(
            answer["features"], np.concatenate([small, large], axis=-1), atol=1e-5
        )

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
    def test_classify_bytes(self, classifier, signatures, file_format):
        files = [picture(seed, file_format) for seed in (1, 2)]
        answer = signatures["classify_bytes"](image_bytes=tf.constant(files))
        expected = probabilities(classifier, files)
        order = np.argsort(-expected, axis=-1)[:, :3]
        assert answer["indices"].dtype == tf.int32
        np.testing.assert_array_equal(answer["indices"], order)
        np.testing.assert_allclose(
            answer["scores"], np.take_along_axis(expected, order, axis=-1), atol=1e-5
        )
        names = [[name.decode() for name in row] for row in answer["classes"].numpy()]
        assert names == [[LABELS[index] for index in row] for row in order]

    def test_bad_pictures_leave_the_others_as_they_are(self, signatures):
        classify = signatures["classify_bytes"]
        bomb = bytearray(picture())
        bomb[16:24] = b"\x00\x00\xea\x60" * 2  # 60000 x 60000
        bad = [b"", b"no picture", picture()[:-40], picture(0, "JPEG")[:500], bytes(bomb)]
        good = [picture(seed) for seed in range(len(bad))]
        mixed = [file for pair in zip(bad, good, strict=True) for file in pair]
        answer, alone = (classify(image_bytes=tf.constant(files)) for files in (mixed, good))
        for key, nothing in (("classes", b""), ("indices", -1), ("scores", 0.0)):
            assert answer[key].shape == (10, 3)
            assert (answer[key][0::2].numpy() == nothing).all(), key
        np.testing.assert_array_equal(answer["classes"][1::2], alone["classes"])
        np.testing.assert_array_equal(answer["indices"][1::2], alone["indices"])
        np.testing.assert_allclose(answer["scores"][1::2], alone["scores"], atol=1e-6)

    def test_only_bad_pictures_and_none(self, signatures):
        classify = signatures["classify_bytes"]
        answer = classify(image_bytes=tf.constant([b"", b"x"]))
        assert answer["indices"].numpy().tolist() == [[-1] * 3] * 2
        assert classify(image_bytes=tf.constant([], tf.string))["scores"].shape == (0, 3)


class TestOtherModels:
    """Models whose input or output is another; one export in all, since each takes seconds."""

    def test_normalised_input_and_logits(self, classifier, tmp_path):
        """The signatures stay: pixels in, probabilities out."""
        bare = base.small_model(include_preprocessing=False, classifier_activation=None)
        bare.set_weights(classifier.get_weights()[-len(bare.weights) :])
        path = kc.export_saved_model(bare, tmp_path, top_k=9, crop_ratio=1.0)
        loaded = tf.saved_model.load(path).signatures
        images = base.pixels()
        np.testing.assert_allclose(
            loaded["serving_default"](images=images)["probabilities"],
            classifier.predict(images, verbose=0),
            atol=1e-5,
        )
        answer = loaded["classify_bytes"](image_bytes=tf.constant([picture()]))
        np.testing.assert_allclose(
            np.sort(answer["scores"]),
            np.sort(probabilities(classifier, [picture()], crop_ratio=1.0)),
            atol=1e-5,
        )
        # All five classes, named by their indices.
        assert answer["classes"][0].numpy().tolist() == [
            str(index).encode() for index in answer["indices"][0].numpy()
        ]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"classifier_activation": "linear"}, keras.ops.softmax),
            ({"classifier_activation": "sigmoid"}, keras.ops.sigmoid),
            ({"input_shape": (48, 64, 3)}, keras.ops.softmax),
        ],
    )
    def test_runner(self, arguments, expected):
        from keras_crossvit.export.signatures import make_runner

        model = base.small_model(**arguments)
        heads = [model.get_layer(f"{branch}_head") for branch in ("small", "large")]
        images = base.pixels(2, *model.input_shape[1:3])
        logits = keras.Model(model.input, model.get_layer("logits").output)
        answer, features = make_runner(model, heads)(images)
        np.testing.assert_allclose(answer, expected(logits(images)), atol=1e-6)
        assert features.shape == (2, 16 + 24)

    def test_own_preprocessing_is_left_alone(self):
        from keras_crossvit.export.signatures import make_runner

        image = keras.Input((40, 40, 3))
        scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
        model = base.small_model(input_tensor=scaled, include_preprocessing=False)
        heads = [model.get_layer(f"{branch}_head") for branch in ("small", "large")]
        images = base.pixels()
        np.testing.assert_allclose(
            make_runner(model, heads)(images)[0], model.predict(images, verbose=0), atol=1e-6
        )


class TestFolder:
    def test_what_it_holds(self, export):
        assert export.name == "1"
        assert sorted(path.name for path in export.parent.iterdir()) == ["1"]
        assert (export / "assets" / "labels.txt").read_text(
            encoding="utf-8"
        ).splitlines() == LABELS
        assert (export / "saved_model.pb").is_file()
        assert export.stat().st_mode & 0o755 == 0o755  # the server is another user

    def test_warmup_requests(self, export, signatures):
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

        records = tf.data.TFRecordDataset(str(export / "assets.extra/tf_serving_warmup_requests"))
        seen = set()
        for record in records.as_numpy_iterator():
            log = PredictionLog.FromString(record)
            assert log.SerializeToString(deterministic=True) == record  # no unknown fields
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            answer = signatures[request.model_spec.signature_name](
                **{name: tf.constant(value) for name, value in inputs.items()}
            )
            assert all(len(value) == 1 for value in answer.values())
            if "scores" in answer:
                assert answer["indices"].numpy().min() >= 0  # the picture was read
            seen.add(request.model_spec.signature_name)
        assert seen == {"serving_default", "classify_bytes", "features"}

    def test_failure_leaves_nothing(self, classifier, tmp_path, monkeypatch):
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"older")

        def fail(folder, size):
            assert (folder / "saved_model.pb").is_file()
            assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == ["1"]
            raise OSError("disk full")

        monkeypatch.setattr(warmup, "write_warmup_requests", fail)
        with pytest.raises(OSError, match="disk full"):
            kc.export_saved_model(classifier, tmp_path)
        assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
            "1",
            "1/saved_model.pb",
        ]
        assert (tmp_path / "1" / "saved_model.pb").read_bytes() == b"older"

    @pytest.mark.parametrize(
        ("taken", "version"),
        [([], "1"), (["1", "2"], "3"), (["007", "x", "2"], "8"), (["9"], "10")],
    )
    def test_next_version(self, tmp_path, taken, version):
        for name in taken:
            (tmp_path / name).mkdir()
        written = tmp_path / ".export-a"
        written.mkdir()
        (written / "file").write_text("a")
        assert saved_model._publish(written, tmp_path) == tmp_path / version
        assert (tmp_path / version / "file").read_text() == "a"
        assert all((tmp_path / name).is_dir() for name in taken)

    def test_exporters_at_once(self, tmp_path):
        """Twenty that all look for the next number at the same time each get one."""
        start = threading.Barrier(20)

        def publish(index):
            written = tmp_path / f".export-{index}"
            written.mkdir()
            (written / "file").write_text(str(index))
            start.wait()
            saved_model._publish(written, tmp_path)

        threads = [threading.Thread(target=publish, args=[index]) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, 21))
        texts = {(path / "file").read_text() for path in tmp_path.iterdir()}
        assert texts == {str(index) for index in range(20)}


TF1_CLIENT = """
import json, sys
sys.modules["keras"] = sys.modules["keras_crossvit"] = None  # so that importing them fails
import numpy as np
import tensorflow.compat.v1 as tf

folder, data = sys.argv[1:]
data = np.load(data)
with tf.Session(graph=tf.Graph()) as session:
    signatures = tf.saved_model.loader.load(session, ["serve"], folder).signature_def

    def run(name, **inputs):
        signature = signatures[name]
        outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        return session.run(outputs, feeds)

    answers = {
        "serving_default": run("serving_default", images=data["images"]),
        "features": run("features", images=data["images"]),
        "classify_bytes": run("classify_bytes", image_bytes=[b"bad", data["picture"].tobytes()]),
    }
answers["classify_bytes"]["classes"] = np.char.decode(
    answers["classify_bytes"]["classes"].astype("S"), "utf-8"
)
assert sys.modules["keras"] is None
print(json.dumps({name: {k: v.tolist() for k, v in a.items()} for name, a in answers.items()}))
"""


class TestOtherProcesses:
    def test_tf1_session_without_keras(self, classifier, export, signatures, tmp_path):
        images, file = base.pixels(), picture()
        np.savez(tmp_path / "data.npz", images=images, picture=np.frombuffer(file, "uint8"))
        answers = json.loads(base.run_python(TF1_CLIENT, export, tmp_path / "data.npz"))
        np.testing.assert_allclose(
            answers["serving_default"]["probabilities"],
            classifier.predict(images, verbose=0),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            answers["features"]["features"],
            signatures["features"](images=images)["features"],
            atol=1e-4,
        )
        expected = probabilities(classifier, [file])[0]
        order = np.argsort(-expected)[:3]
        assert answers["classify_bytes"]["indices"] == [[-1] * 3, order.tolist()]
        assert answers["classify_bytes"]["classes"] == [[""] * 3, [LABELS[i] for i in order]]
        np.testing.assert_allclose(
            answers["classify_bytes"]["scores"], [[0] * 3, expected[order]], atol=1e-5
        )

    def test_saved_model_cli(self, export):
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "show", "--dir", export, "--tag_set", "serve", "--all"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in (
            "signature_def['serving_default']",
            "signature_def['classify_bytes']",
            "signature_def['features']",
            "inputs['images'] tensor_info",
            "inputs['image_bytes'] tensor_info",
            "outputs['probabilities'] tensor_info",
            "outputs['classes'] tensor_info",
            "outputs['indices'] tensor_info",
            "outputs['scores'] tensor_info",
            "outputs['features'] tensor_info",
            "shape: (-1, 40, 40, 3)",
            "shape: (-1, 3)",
        ):
            assert line in shown, line

    def test_import_needs_no_tensorflow(self):
        code = (
            "import sys; sys.modules['tensorflow'] = None\n"
            "from keras_crossvit import export_saved_model; print(export_saved_model.__name__)"
        )
        assert base.run_python(code, KERAS_BACKEND="jax").strip() == "export_saved_model"

    def test_other_backends_are_told_what_to_do(self, tmp_path):
        code = (
            "from tests import base; import keras_crossvit as kc, sys\n"
            "try: kc.export_saved_model(base.small_model(), sys.argv[1])\n"
            "except RuntimeError as error: print(error)"
        )
        said = base.run_python(code, tmp_path / "new", KERAS_BACKEND="jax")
        assert "needs the TensorFlow backend" in said
        assert "Received: the backend 'jax'" in said
        assert not (tmp_path / "new").exists()


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"labels": ["a"] * 4},
                "`labels` must be a list of 5 names.*Received: list of length 4",
            ),
            ({"labels": "abcde"}, "`labels` must be a list of 5 names.*Received: str"),
            ({"labels": ["a", "b", "", "d", "e"]}, "`labels` must be non-empty.*Received: ''"),
            ({"labels": ["a", "b\n", "c", "d", "e"]}, "`labels` must be non-empty.*without line"),
            ({"labels": [1, 2, 3, 4, 5]}, "`labels` must be non-empty strings.*Received: 1"),
            ({"top_k": 0}, "`top_k` must be a positive integer. Received: top_k=0"),
            (
                {"crop_ratio": 0},
                r"`crop_ratio` must be in \(0, 1\] or None. Received: crop_ratio=0",
            ),
            ({"crop_ratio": 1.5}, "Received: crop_ratio=1.5"),
        ],
    )
    def test_arguments(self, classifier, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            kc.export_saved_model(classifier, tmp_path / "new", **arguments)
        assert not (tmp_path / "new").exists()

    def test_directory_that_is_a_file(self, classifier, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(ValueError, match=r"`directory` must be a folder\. Received: "):
            kc.export_saved_model(classifier, tmp_path / "file")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: base.small_model(include_top=False), "must be a classifier of this package"),
            (lambda: keras.Sequential([keras.Input([3])]), "must be a classifier of this package"),
            (lambda: "crossvit_9", "Received: model='crossvit_9'"),
            (lambda: kc.branch_logits(base.small_model()), "`model` must have one output"),
            (
                lambda: base.small_model(input_shape=(40, 40, 1), include_preprocessing=False),
                r"`model` must have one input of 3 channels.*\(None, 40, 40, 1\)",
            ),
        ],
    )
    def test_models(self, tmp_path, make, message):
        with pytest.raises(ValueError, match=message):
            kc.export_saved_model(make(), tmp_path / "new")
        assert not (tmp_path / "new").exists()
