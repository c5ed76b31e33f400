"""What the SavedModel answers, by value; which models and arguments it takes."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import keras_crossvit as kc
from keras_crossvit.export import load_exported
from tests import base
from tests.data_room.image_files import decoded, encoded, noise
from tests.export.helpers import LABELS, picture, probabilities

pytestmark = pytest.mark.slow


class TestSignatures:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_serving_default(self, classifier, signatures, batch):
        images = base.pixels(batch)
        answer = signatures["serving_default"](images=images)
        assert list(answer) == ["probabilities"]
        np.testing.assert_allclose(
            answer["probabilities"], classifier.predict(images, verbose=0), atol=1e-6
        )

    @pytest.mark.parametrize("name", ["serving_default", "features"])
    def test_images_of_another_shape(self, export, name):
        """As a server passes them on: one without a batch ended its process."""
        loaded = tf.saved_model.load(export)
        signature = loaded.signatures[name]
        serve = tf.function(lambda x: signature(images=x), input_signature=[tf.TensorSpec(None)])
        assert len(serve(np.zeros((2, 40, 40, 3), "float32"))) == 1
        for shape in ((40, 40, 3), (1, 40, 40, 1), (1, 80, 80, 3)):
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"shape \[\?,40,40,3\]"):
                serve(np.zeros(shape, "float32"))

    def test_features(self, classifier, signatures):
        images = base.pixels()
        norms = [classifier.get_layer(f"{branch}_norm").output for branch in ("small", "large")]
        small, large = keras.Model(classifier.input, norms).predict(images, verbose=0)
        answer = signatures["features"](images=images)
        assert list(answer) == ["features"]
        np.testing.assert_allclose(
            answer["features"], np.concatenate([small, large], axis=-1), atol=1e-5
        )

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
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

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_classify_bytes_turns_upright(self, classifier, signatures, file_format):
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)
        options = {"lossless": True} if file_format == "WEBP" else {}
        file = encoded(noise(50, 70), file_format, exif=exif, **options)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
        upright = encoded(np.asarray(image), "PNG")
        answer = signatures["classify_bytes"](image_bytes=tf.constant([file]))
        expected = np.sort(probabilities(classifier, [upright]))[:, :-4:-1]
        np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
        stored = np.sort(probabilities(classifier, [encoded(decoded(file), "PNG")]))[:, :-4:-1]
        assert np.abs(answer["scores"] - stored).max() > 1e-4

    def test_older_servers_know_every_operation(self, signatures):
        """TensorFlow 2.20 and later decode WebP; its own operation would shut out older ones."""
        graph = signatures["classify_bytes"].graph.as_graph_def()
        functions = [node.op for function in graph.library.function for node in function.node_def]
        assert "DecodeImage" in functions
        assert "DecodeWebP" not in functions

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

    def test_the_names_leave_nothing_that_later_conversions_warn_of(self, export):
        from keras_crossvit.export.signatures import _names

        kept = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
        before = list(kept)
        names = _names(export / "assets" / "labels.txt").lookup(tf.constant([2, -1], tf.int64))
        assert [name.decode() for name in names.numpy()] == [LABELS[2], ""]
        assert kept == before


class TestOtherModels:
    """Models with other inputs or outputs; few exports, since each takes seconds."""

    def test_normalised_input_and_logits(self, classifier, tmp_path):
        """The signatures stay: pixels in, probabilities out."""
        bare = base.small_model(include_preprocessing=False, classifier_activation=None)
        bare.set_weights(classifier.get_weights()[-len(bare.weights) :])
        path = kc.export_saved_model(bare, tmp_path, top_k=9, crop_ratio=1.0)
        loaded = tf.saved_model.load(path).signatures
        images = base.pixels()
        expected = classifier.predict(images, verbose=0)
        answer = loaded["serving_default"](images=images)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        np.testing.assert_allclose(load_exported(path)(images), expected, atol=1e-5)
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

    def test_an_image_for_each_branch(self, tmp_path):
        model = base.small_model(inputs="separate")
        path = kc.export_saved_model(model, tmp_path, crop_ratio=1.0)
        loaded = tf.saved_model.load(path)
        small, large = base.pixels(seed=1), base.pixels(seed=2)
        answer = loaded.signatures["serving_default"](small_images=small, large_images=large)
        wanted = model.predict_on_batch([small, large])
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-6)
        np.testing.assert_allclose(load_exported(path)(small, large), wanted, atol=1e-6)
        files = [tf.io.encode_png(tf.cast(x[0], tf.uint8)).numpy() for x in (small, large)]
        answer = loaded.signatures["classify_bytes"](
            small_image_bytes=tf.constant([files[0], files[0]]),
            large_image_bytes=tf.constant([files[1], b"none"]),
        )
        pair = [np.floor(small[:1]), np.floor(large[:1])]
        wanted = np.sort(model.predict_on_batch(pair)[0])[::-1]
        np.testing.assert_allclose(answer["scores"][0], wanted, atol=1e-5)
        np.testing.assert_array_equal(answer["indices"][1], -1)

    def test_a_grey_model_reads_colour_files(self, tmp_path):
        model = base.small_model(input_shape=(40, 40, 1))
        loaded = tf.saved_model.load(kc.export_saved_model(model, tmp_path, crop_ratio=1.0))
        pixels = tf.cast(base.pixels(1)[0], tf.uint8)
        answer = loaded.signatures["classify_bytes"](
            image_bytes=tf.constant([tf.io.encode_png(pixels).numpy()])
        )
        grey = np.asarray(pixels, "float32") @ np.array([[0.2989], [0.587], [0.114]], "float32")
        wanted = np.sort(model.predict_on_batch(grey[np.newaxis])[0])[::-1]
        np.testing.assert_allclose(answer["scores"][0], wanted, atol=1e-5)

    def test_images_that_no_file_holds(self, tmp_path):
        model = base.small_model(input_shape=(40, 40, 5), mean=(0.4,) * 5, std=(0.3,) * 5)
        folder = kc.export_saved_model(model, tmp_path)
        signatures = tf.saved_model.load(folder).signatures
        assert set(signatures) == {"serving_default", "features"}
        images = np.concatenate([base.pixels(seed=1), base.pixels(seed=2)], axis=-1)[..., :5]
        np.testing.assert_allclose(
            signatures["serving_default"](images=images)["probabilities"],
            model.predict_on_batch(images),
            atol=1e-6,
        )
        requests = tf.data.TFRecordDataset(str(next((folder / "assets.extra").iterdir())))
        assert len(list(requests)) == 2

    def test_a_stem_that_changes_the_shape(self, tmp_path):
        """Exports take what the model does: here grey, twice as large, of any height."""
        from keras_crossvit.export.frozen import freeze
        from keras_crossvit.models.inputs import image_shape

        image = keras.Input((None, 80, 1))
        colours = keras.layers.Concatenate()([keras.layers.Resizing(40, 40)(image)] * 3)
        model = base.small_model(base.small_config(num_stages=1), input_tensor=colours)
        assert image_shape(model) == (40, 80, 1)
        images = base.pixels(2, 40, 80)[..., :1]
        wanted = model.predict_on_batch(images)
        run = load_exported(kc.export_saved_model(model, tmp_path))
        np.testing.assert_allclose(run(images), wanted, atol=1e-6)
        np.testing.assert_allclose(freeze(model)(images)["probabilities"], wanted, atol=1e-6)

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
        images = base.pixels(2, *model.input_shape[1:3])
        logits = keras.Model(model.input, model.get_layer("logits").output)
        answer, features = make_runner(model)(images)
        np.testing.assert_allclose(answer, expected(logits(images)), atol=1e-6)
        assert features.shape == (2, 16 + 24)

    def test_own_preprocessing_is_left_alone(self):
        from keras_crossvit.export.signatures import make_runner

        image = keras.Input((40, 40, 3))
        scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
        model = base.small_model(input_tensor=scaled, include_preprocessing=False)
        images = base.pixels()
        np.testing.assert_allclose(
            make_runner(model)(images)[0], model.predict(images, verbose=0), atol=1e-6
        )


def on_two_images():
    images = [keras.Input((40, 40, 3)), keras.Input((40, 40, 3))]
    return base.small_model(input_tensor=keras.layers.Average()(images))


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"labels": ["a"] * 4},
                "`labels` must be a list of 5 names.*Received: list of length 4",
            ),
            ({"labels": "abcde"}, "`labels` must be a list of 5 names.*Received: str"),
            ({"labels": 5}, "`labels` must be a list of 5 names.*Received: int 5"),
            ({"labels": ["a", "b", "", "d", "e"]}, "`labels` must be non-empty.*Received: ''"),
            ({"labels": ["a", "b\n", "c", "d", "e"]}, "`labels` must be non-empty.*without line"),
            ({"labels": [1, 2, 3, 4, 5]}, "`labels` must be non-empty strings.*Received: 1"),
            ({"top_k": 0}, "`top_k` must be a positive integer. Received: top_k=0"),
            (
                {"crop_ratio": 0},
                r"`crop_ratio` must be a number in \(0, 1\]. Received: crop_ratio=0",
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
            (lambda: kc.branch_logits(base.small_model()), "must be a classifier of this package"),
            (lambda: on_two_images(), "must have one input.*Received: inputs of shapes"),
        ],
    )
    def test_models(self, tmp_path, make, message):
        with pytest.raises(ValueError, match=message):
            kc.export_saved_model(make(), tmp_path / "new")
        assert not (tmp_path / "new").exists()
