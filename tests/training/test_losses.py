"""The losses of rows: softmax, sigmoid, balanced classes, a teacher; the best epoch."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_crossvit as kc
from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.training.assembly import make_loss
from keras_crossvit.training.best import best_epoch, is_over
from keras_crossvit.training.steps.losses import RowLoss, Teacher, balanced_weights
from tests import base
from tests.training.tiny import RECIPE

DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(4, 3)).astype("float32")
ONE = np.eye(3, dtype="float32")[[0, 2, 1, 1]]
SEVERAL = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], "float32")


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_softmax_is_the_cross_entropy():
    wanted = -(ONE * log_softmax(LOGITS)).sum(-1)
    np.testing.assert_allclose(RowLoss()(ONE, LOGITS), wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_gradients_are_those_of_the_values(kind):
    """Also for labels that do not sum to 1: weighted, several, or none (an unreadable image)."""
    loss = RowLoss(kind, np.array([2, 0.5, 1], "float32"))
    labels = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [0.3, 0.3, 0]], "float32")

    def total(logits):
        return ops.sum(loss(labels, logits))

    small = 1e-2
    wanted = np.zeros_like(LOGITS)
    for index in np.ndindex(*LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[index] = small
        wanted[index] = (float(total(LOGITS + step)) - float(total(LOGITS - step))) / (2 * small)
    with tf.GradientTape() as tape:
        logits = tf.Variable(LOGITS)
        value = total(logits)
    found = tape.gradient(value, logits)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    np.testing.assert_array_equal(found[0], 0)


def test_sigmoid_is_the_mean_of_the_binary_cross_entropies():
    p = sigmoid(LOGITS)
    wanted = -(SEVERAL * np.log(p) + (1 - SEVERAL) * np.log(1 - p)).mean(-1)
    wanted[3] = 0  # without a label: an image that could not be read
    np.testing.assert_allclose(RowLoss("sigmoid")(SEVERAL, LOGITS), wanted, rtol=1e-5)


def test_sigmoid_of_large_logits_is_finite():
    labels, logits = np.ones((1, 2), "float32"), np.array([[-1e4, 1e4]], "float32")
    np.testing.assert_allclose(RowLoss("sigmoid")(labels, logits), [5e3])


def test_balanced_classes_as_scikit_learn_has_them():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    weights = balanced_weights(labels, 3, "softmax")
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights, wanted)
    losses = np.asarray(RowLoss("softmax", weights)(ONE, LOGITS))
    plain = -(ONE * log_softmax(LOGITS)).sum(-1)
    np.testing.assert_allclose(losses, plain * wanted[[0, 2, 1, 1]], rtol=1e-5)


def test_balanced_labels_of_a_sigmoid_are_those_without_over_those_with():
    weights = balanced_weights(SEVERAL, 3, "sigmoid")
    np.testing.assert_allclose(weights, [1, 3, 1])
    p = sigmoid(LOGITS)
    wanted = -(weights * SEVERAL * np.log(p) + (1 - SEVERAL) * np.log(1 - p)).mean(-1)
    losses = np.asarray(RowLoss("sigmoid", weights)(SEVERAL, LOGITS))
    np.testing.assert_allclose(losses[:3], wanted[:3], rtol=1e-5)


def test_a_class_without_images_has_no_weight():
    with pytest.raises(ValueError, match=r"`class_weights` must be null .* class 1 has none"):
        balanced_weights(np.array([0, 2]), 3, "softmax")


def test_a_label_of_all_images_has_no_weight():
    with pytest.raises(ValueError, match=r"same label, .* and all have class 1"):
        balanced_weights(np.array([[1, 1, 0], [0, 1, 1]]), 3, "sigmoid")


@pytest.mark.parametrize("outside", [-1, 3])
def test_labels_outside_of_the_classes_are_not_weighted(outside):
    split = MemorySplit([b""] * 3, [0, outside, 1])
    source = Source("pets", ("ant", "bee", "cat"), split, split)
    config = dataclasses.replace(RECIPE, dataset="pets", class_weights="balanced")
    with pytest.raises(ValueError, match=r"^`dataset` must have labels of its classes alone"):
        make_loss(config, source, None)


class TestTeacher:
    @pytest.fixture(scope="class")
    @staticmethod
    def model():
        return base.small_model()

    @pytest.fixture(scope="class")
    @staticmethod
    def setting(model):
        images = base.pixels(4)
        labels = np.eye(5, dtype="float32")[[0, 1, 2, 2]]
        labels[3] = 0  # unreadable
        teacher = keras.Model(model.input, model.logits).predict_on_batch(images)
        logits = DRAW.normal(size=(4, 5)).astype("float32")
        own = -(labels * log_softmax(logits)).sum(-1)
        return images, labels, teacher, logits, own

    def test_soft(self, model, setting):
        images, labels, theirs, logits, own = setting
        loss = RowLoss(teacher=Teacher(model, "soft", alpha=0.25, temperature=2.0))
        target = np.exp(log_softmax(theirs / 2))
        learnt = (target * (log_softmax(theirs / 2) - log_softmax(logits / 2))).sum(-1) * 4
        learnt[3] = 0
        found = loss(labels, logits, loss.teacher.logits(images))
        np.testing.assert_allclose(found, 0.75 * own + 0.25 * learnt, rtol=1e-4, atol=1e-6)

    def test_hard(self, model, setting):
        images, labels, theirs, logits, own = setting
        loss = RowLoss(teacher=Teacher(model, "hard"))
        learnt = -log_softmax(logits)[np.arange(4), theirs.argmax(-1)]
        learnt[3] = 0
        found = loss(labels, logits, loss.teacher.logits(images))
        np.testing.assert_allclose(found, (own + learnt) / 2, rtol=1e-4)

    def test_a_model_that_ends_in_a_softmax_teaches_the_same(self, setting):
        inputs = keras.Input((40, 40, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
        logits = keras.layers.Dense(5)(pooled)
        ends_in_softmax = keras.Model(inputs, keras.layers.Softmax()(logits))
        dense = keras.layers.Dense(5, activation="softmax")
        joined = keras.Model(inputs, dense(pooled))
        dense.set_weights(ends_in_softmax.layers[-2].get_weights())
        images = setting[0]
        wanted = log_softmax(np.asarray(keras.Model(inputs, logits)(images)))
        wrapped = keras.Sequential([inputs, keras.layers.Rescaling(1.0), joined])
        average = keras.Model(inputs, keras.layers.Average()([joined(inputs)] * 2))
        cast = keras.Model(inputs, keras.layers.Activation("linear")(joined(inputs)))
        for model in (ends_in_softmax, joined, wrapped, average, cast):
            found = np.asarray(Teacher(model).logits(images))
            np.testing.assert_allclose(log_softmax(found), wanted, atol=1e-5)

    def test_a_model_that_ends_in_sigmoids_teaches_what_these_had(self, setting):
        """Also where no layer says so. Logits that look like probabilities stay as they are."""
        inputs = keras.Input((40, 40, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
        dense = keras.layers.Dense(5, bias_initializer=keras.initializers.Constant(-2.0))
        logits = dense(pooled)
        probabilities = keras.layers.Activation("sigmoid")(logits)
        ends_in_sigmoid = keras.Model(inputs, probabilities)
        unnamed = keras.Model(inputs, keras.layers.Average()([probabilities] * 2))
        images = setting[0]
        wanted = np.asarray(keras.Model(inputs, logits)(images))
        for model in (ends_in_sigmoid, keras.Sequential([inputs, ends_in_sigmoid]), unnamed):
            np.testing.assert_allclose(Teacher(model).logits(images), wanted, atol=1e-4)
        constant = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
        dense.set_weights([np.zeros((3, 5)), constant])
        found = Teacher(keras.Model(inputs, logits)).logits(images)
        np.testing.assert_allclose(found, [constant] * 4, atol=1e-6)

    def test_a_sure_sigmoid_teaches_finite_logits(self):
        inputs = keras.Input((4, 4, 3))
        dense = keras.layers.Dense(2, "sigmoid")
        model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)))
        dense.set_weights([np.zeros((3, 2)), np.array([90.0, -90.0])])
        (found,) = np.asarray(Teacher(model).logits(np.zeros((1, 4, 4, 3), "float32")))
        np.testing.assert_allclose(found, [np.log(1e7), np.log(1e-12)], rtol=0.02)

    def test_a_teacher_without_preprocessing_gets_normalised_images(self, model, setting):
        others = {"include_preprocessing": False, "drop_rate": 0.5}  # which teaching leaves out
        other = kc.CrossViT(model.config, weights=None, classes=5, **others)
        other.set_weights(model.get_weights())
        images, _, wanted, _, _ = setting
        np.testing.assert_allclose(Teacher(other).logits(images), wanted, atol=1e-4)


def rows(*values):
    return [{"val_accuracy": value, "val_loss": -value} for value in values]


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_epoch(metric):
    assert best_epoch(rows(0.5, 0.7, 0.7, 0.6), metric) == 1
    assert best_epoch(rows(float("nan"), 0.2, float("nan")), metric) == 1
    assert not is_over(rows(0.5, 0.7, 0.7), metric, 2)
    assert is_over(rows(0.5, 0.7, 0.7, 0.6), metric, 2)
    assert not is_over(rows(0.5, 0.7, 0.7, 0.6), metric, None)
