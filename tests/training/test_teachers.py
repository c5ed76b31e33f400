"""Which models can teach."""

import re
import zipfile

import keras
import numpy as np
import pytest

from keras_crossvit.training.steps.losses import Teacher
from keras_crossvit.training.teachers import load_teacher
from tests import base
from tests.training.tiny import data

IMAGES = (None, 40, 40, 3)
SOURCE = data(tuple("abcde"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crossvit_9", "`teacher` must be a .keras file unless the data have ImageNet's"),
        ("nowhere.keras", "`teacher` must be the name of a preset or an existing .keras file"),
    ],
)
def test_a_teacher_that_knows_nothing_is_refused(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_teacher(name, IMAGES, SOURCE)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    """A byte of the weights."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def weightless(path):
    with zipfile.ZipFile(path) as before:
        config = before.read("config.json")
    with zipfile.ZipFile(path, "w") as after:
        after.writestr("config.json", config)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "it is cut off, or a file of another kind"),
        (flipped, r"its model\.weights\.h5 is damaged"),
        (weightless, "Expected a model.weights.h5"),
    ],
)
def test_a_damaged_teacher_is_named_in_one_line(spoil, reason, tmp_path):
    path = tmp_path / "teacher.keras"
    base.small_model().save(path)
    spoil(path)
    message = (
        rf"^`teacher` must be a complete \.keras file\. Received: {path}, .* read: {reason}.*$"
    )
    with pytest.raises(ValueError, match=message) as raised:
        load_teacher(str(path), IMAGES, SOURCE)
    assert "\n" not in str(raised.value)


def test_a_teacher_with_a_layer_that_is_not_registered(tmp_path):
    class Unknown(keras.layers.Layer):
        pass

    path = tmp_path / "teacher.keras"
    keras.Sequential([keras.Input((40, 40, 3)), Unknown()]).save(path)
    with pytest.raises(
        ValueError, match=r"^`teacher` .* locate class 'Unknown'; keras\.saving.*$"
    ):
        load_teacher(str(path), IMAGES, SOURCE)


class Subclassed(keras.Model):
    """A model without an `input_shape`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dense = keras.layers.Dense(5, "softmax")

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1]))

    def call(self, images):
        return self.dense(self.pool(images))


def classifier(side, classes, wrap=lambda answers: answers):
    images = keras.Input((side, side, 3))
    answers = keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(images))
    return keras.Model(images, wrap(answers))


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Loads a given model as the teacher, from a file in the home folder."""

    def load(model, source=SOURCE):
        paths = []
        monkeypatch.setattr(
            keras.saving, "load_model", lambda path, compile: paths.append(path) or model
        )
        found = load_teacher("~/teacher.keras", IMAGES, source)
        assert paths == [tmp_path / "teacher.keras"]
        return found

    return load


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "teacher.keras").write_bytes(b"")


def test_any_keras_model_teaches(opened):
    subclassed = Subclassed()
    subclassed.build(IMAGES)
    for model in (classifier(40, 5), classifier(None, 5), subclassed):
        assert opened(model) is model
    images = base.pixels()
    found = Teacher(subclassed, image_shape=IMAGES[1:]).logits(images)
    wanted = np.log(np.maximum(subclassed(images), 1e-12))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "answers"),
    [
        (lambda: classifier(40, 4), r"with \(None, 4\)"),
        (lambda: classifier(48, 5), r"with an error: .*\(None, 48, 48, 3\).*"),
        (
            lambda: keras.Sequential([keras.Input((48, 48, 3)), classifier(48, 5)]),
            r"with an error: Input .*\(None, 48, 48, 3\).*",
        ),
        (lambda: classifier(40, 5, lambda answers: {"a": answers}), "with a dict"),
        (lambda: classifier(40, 5, lambda answers: [answers, answers]), "with a list"),
    ],
)
def test_a_teacher_that_answers_otherwise_is_refused(model, answers, opened):
    message = (
        r"^`teacher` must take images \(None, 40, 40, 3\) and answer \(None, 5\), as the model "
        rf"does\. Received: teacher='~/teacher\.keras', which answers {answers}$"
    )
    with pytest.raises(ValueError, match=message):
        opened(model())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("abcde", None),
        ("vwxyz", "taken in their order: v as a, and so on"),
        ("abcdz", "taken in their order: z as e, and so on"),
    ],
)
def test_other_names_of_classes_are_logged(labels, said, opened, caplog):
    assert opened(base.small_model(labels=list(labels))).labels == tuple(labels)
    assert len(caplog.messages) == (said is not None)
    assert said is None or said in caplog.messages[0]


@pytest.mark.parametrize("labels", ["badce", "bwxyz"])
def test_classes_in_another_order_are_refused(labels, opened):
    message = r"^`teacher` must .* whose class 0 is 'b' instead of 'a'$"
    with pytest.raises(ValueError, match=message):
        opened(base.small_model(labels=list(labels)))
