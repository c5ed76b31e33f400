"""Evaluation: shares, classes, branches, and what the recipe writes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

import keras_crossvit as kc
from keras_crossvit import evaluation, probes
from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.evaluation import evaluate, multi_label_figures, plot_confusion
from keras_crossvit.probes import features_of, knn, linear_probe
from tests.base import small_model

pytestmark = pytest.mark.slow

NAMES = ("ant", "bee", "cow", "dog", "elk")


def split(pictures, labels):
    names = [f"picture {row}" for row in range(len(labels))]
    encoded = [x if isinstance(x, bytes) else tf.io.encode_png(x).numpy() for x in pictures]
    return MemorySplit(encoded, labels, names)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (40, 40, 3)).astype("uint8") for _ in range(12)]


def test_every_figure_by_hand(pictures):
    """Against the model's own answers, with one file among them that is not an image."""
    model = small_model()
    labels = [0, 1, 2, 3] * 3
    data = split([*pictures[:11], b"no picture"], labels)
    result = evaluate(model, data, NAMES, batch_size=5, crop_ratio=1.0, branches=True)
    images = np.stack(pictures[:11]).astype("float32")
    labels = np.array(labels[:11])
    assert (result["pictures"], result["unreadable"]) == (11, 1)

    heads = kc.branch_logits(model).predict_on_batch(images)
    probabilities = model.predict_on_batch(images)
    for scores, shares in (
        (probabilities, result),
        (heads["small"], result["branches"]["small"]),
        (heads["large"], result["branches"]["large"]),
    ):
        assert shares["top1"] == pytest.approx((scores.argmax(1) == labels).mean())
        assert "top5" not in shares  # of five classes
    answers = probabilities.argmax(1)
    confusion = np.zeros((5, 5))
    for label, answer in zip(labels, answers, strict=True):
        confusion[label, answer] += 1
    np.testing.assert_array_equal(result["confusion"], confusion)
    assert result["per_class"]["elk"] is None
    assert result["per_class"]["bee"] == pytest.approx((answers[labels == 1] == 1).mean())


@pytest.mark.parametrize("several", [False, True])
def test_a_model_without_preprocessing_gets_normalised_images(pictures, several):
    """The same weights, the same figures, for the model and for its features."""
    model = small_model(classifier_activation="sigmoid" if several else "softmax")
    other = kc.CrossViT(
        model.config,
        weights=None,
        classes=5,
        include_preprocessing=False,
        classifier_activation=model.classifier_activation,
    )
    other.set_weights(model.get_weights())
    labels = np.eye(5, dtype="float32")[[0, 1, 2, 3] * 3] if several else [0, 1, 2, 3] * 3
    data = split(pictures, labels)
    found, wanted = (
        evaluate(x, data, NAMES, crop_ratio=1.0, branches=True) for x in (other, model)
    )
    for key in ("auc", "f1") if several else ("top1", "confusion"):
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-6)
    if not several:
        ours, theirs = (features_of(x, data, 5, crop_ratio=1.0)[0] for x in (other, model))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_two_classes_of_one_name(pictures):
    names = ("ant", "crane", "crane", "dog", "elk")
    result = evaluate(small_model(), split(pictures[:2], [1, 2]), names, crop_ratio=1.0)
    assert [*result["per_class"]] == ["ant", "crane (1)", "crane (2)", "dog", "elk"]
    assert None not in (result["per_class"]["crane (1)"], result["per_class"]["crane (2)"])


def test_top5_counts_the_five_best():
    inputs = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)[:, :1]
    scores = keras.layers.Concatenate()([mean * 0 + float(-column) for column in range(7)])
    model = keras.Model(inputs, scores)
    grey = [np.full((8, 8, 3), 9, "uint8")] * 4
    result = evaluate(model, split(grey, [0, 4, 5, 6]), list("abcdefg"), crop_ratio=1.0)
    assert (result["top1"], result["top5"]) == (0.25, 0.5)


def test_other_number_of_classes(pictures):
    with pytest.raises(ValueError, match="`model` must have the 2 classes"):
        evaluate(small_model(), split(pictures[:1], [0]), ("a", "b"))


def test_classes_in_another_order_than_the_models(pictures):
    """They would be compared by number, and every figure would be wrong."""
    model = small_model(labels=NAMES[::-1])
    with pytest.raises(ValueError, match=r"the model's labels: .*Received: 'ant' where .*elk"):
        evaluate(model, split(pictures[:1], [0]), NAMES)
    evaluate(model, split(pictures[:1], [0]), NAMES[::-1], crop_ratio=1.0)


def test_a_model_that_takes_pairs(pictures):
    model = small_model(inputs="separate")
    for measure, classes in ((evaluate, NAMES), (features_of, len(NAMES))):
        with pytest.raises(ValueError, match="`model` must see one image with both branches"):
            measure(model, split(pictures[:1], [0]), classes)


def test_a_model_with_an_input_of_any_size(pictures):
    """Files are read at the size that its branches see."""
    image = keras.Input((None, None, 3))
    open_sided = small_model(input_tensor=keras.layers.Resizing(40, 40)(image))
    fixed = small_model()
    fixed.set_weights(open_sided.get_weights())
    data = split(pictures[:4], [0, 1, 2, 3])
    found, wanted = (evaluate(x, data, NAMES) for x in (open_sided, fixed))
    np.testing.assert_array_equal(found["confusion"], wanted["confusion"])
    ours, theirs = (features_of(x, data, 5)[0] for x in (open_sided, fixed))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)

    scores = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ValueError, match=r"of a known size.*\(None, None, None, 3\)"):
        evaluate(keras.Model(image, scores), data, NAMES)


def test_no_picture_at_all():
    with pytest.raises(ValueError, match="Received: 2 unreadable files"):
        evaluate(small_model(), split([b"x", b"y"], [0, 1]), NAMES)
    with pytest.raises(ValueError, match=r"`split` must hold images\. Received: none"):
        evaluate(small_model(), split([], []), NAMES)
    with pytest.raises(ValueError, match=r"can be read\. Received: 2 files, none of which"):
        features_of(small_model(), split([b"x", b"y"], [0, 1]), 5)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("measure", [evaluate, features_of])
def test_pictures_are_turned_as_asked(measure, turned, model, monkeypatch):
    def read(split, classes, size, batch_size, ratio, shard=None, exif_orientation=True):
        raise LookupError(f"{classes}, {batch_size}, {ratio}, {shard}, {exif_orientation}")

    for module in (evaluation, probes):
        monkeypatch.setattr(module, "evaluation_batches", read)
    classes = NAMES if measure is evaluate else len(NAMES)
    options = {"batch_size": 7, "crop_ratio": 0.5, "exif_orientation": turned}
    with pytest.raises(LookupError, match=f"5, 7, 0.5, None, {turned}"):
        measure(model, split([], []), classes, **options)


def test_probes_of_known_features(monkeypatch):
    """By hand, of more images than are compared at a time, with features of unequal scale."""
    draw = np.random.default_rng(0)
    found = {}
    for part, count in (("train", 60), ("validation", 300)):
        labels = np.arange(count) % 3
        features = draw.normal(np.eye(3)[labels], 1.0, (count, 3)) * [1, 2, 20]
        found[part] = features.astype("float32"), labels
    source = Source("x", ("a", "b", "c"), "train", "validation")
    monkeypatch.setattr(probes, "features_of", lambda model, part, classes: found[part])
    (known, answers), (asked, truth) = found["train"], found["validation"]

    right = 0
    for features, label in zip(asked, truth, strict=True):
        cosines = known @ features / np.linalg.norm(known, axis=1) / np.linalg.norm(features)
        nearest = np.argsort(-cosines)[:20]
        votes = np.exp(cosines[nearest] / 0.07) @ np.eye(3)[answers[nearest]]
        right += votes.argmax() == label
    assert 0.4 < right / 300 < 0.9
    expected = {"top1": right / 300, "neighbours": 20, "temperature": 0.07}
    assert knn(None, source) == pytest.approx(expected, abs=1e-9)

    alike = [(x - known.mean(0)) / known.std(0) for x in (known, asked)]
    probe = LogisticRegression(max_iter=1000).fit(alike[0], answers)
    assert linear_probe(None, source)["top1"] == pytest.approx(probe.score(alike[1], truth))


def test_confusion_picture(tmp_path):
    figure = plot_confusion(np.array([[2, 1], [0, 0]]), ("a", "b"), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    shares = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3], [0, 0]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["2", "1"]
    assert json.dumps([t.get_text() for t in figure.axes[0].get_yticklabels()]) == '["a", "b"]'


def test_confusion_of_classes_that_look_like_formulas(tmp_path):
    """And of a folder whose name is not UTF-8, which no font has."""
    names = ("<$10 (50%)$", r"100$ #1 \x $")
    figure = plot_confusion(np.eye(3), (*names, "caf\udce9"), tmp_path / "c.png")
    shown = tuple(t.get_text() for t in figure.axes[0].get_xticklabels())
    assert shown == (*names, r"caf\udce9")


def test_images_with_several_labels(pictures):
    """Against scikit-learn, with a class that no image has."""
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    model = small_model(classifier_activation="sigmoid")
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, (12, 5)).astype("float32")
    labels[:, 4] = 0
    data = split([*pictures[:11], b"no picture"], labels)
    result = evaluate(model, data, NAMES, batch_size=5, crop_ratio=1.0, branches=True)
    truth, scores = labels[:11], model.predict_on_batch(np.stack(pictures[:11]).astype("float32"))
    heads = kc.branch_logits(model).predict_on_batch(np.stack(pictures[:11]).astype("float32"))
    assert (result["pictures"], result["unreadable"]) == (11, 1)
    assert result["mean_average_precision"] == pytest.approx(
        average_precision_score(truth[:, :4], scores[:, :4])
    )
    assert result["auc"] == pytest.approx(roc_auc_score(truth[:, :4], scores[:, :4]))
    assert result["per_class"]["elk"] is None
    bee = result["per_class"]["bee"]
    reached = f1_score(truth[:, 1], scores[:, 1] >= bee["threshold"] - 1e-6)
    assert bee["f1"] == pytest.approx(reached)
    others = [f1_score(truth[:, 1], scores[:, 1] >= threshold) for threshold in scores[:, 1]]
    assert reached == pytest.approx(max(others))
    highest = [result["per_class"][name]["f1"] for name in NAMES[:4]]
    assert result["f1"] == pytest.approx(np.mean(highest))
    alone = evaluate(model, data, NAMES, batch_size=5, crop_ratio=1.0)
    assert alone["per_class"]["bee"]["threshold"] == pytest.approx(bee["threshold"], rel=1e-4)
    assert result["branches"]["small"].keys() == {"mean_average_precision", "auc", "f1"}
    row = result["thresholds"][4]
    chosen = scores >= row["threshold"] - 1e-6  # a score itself, from batches of another size
    assert row["recall"] == pytest.approx((chosen * truth).sum() / truth.sum())
    assert row["precision"] == pytest.approx((chosen * truth).sum() / chosen.sum())
    assert row["f1"] == pytest.approx(f1_score(truth, chosen, average="micro"))
    assert result["branches"]["small"]["auc"] == pytest.approx(
        roc_auc_score(truth[:, :4], heads["small"][:, :4])
    )


def test_several_labels_of_a_model_that_answers_in_bfloat16(pictures):
    from sklearn.metrics import roc_auc_score

    image = keras.Input(small_model().input_shape[1:])
    scores = keras.layers.Dense(5, "sigmoid", dtype="mixed_bfloat16")
    model = keras.Sequential(
        [image, keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D(), scores]
    )
    labels = np.random.default_rng(1).integers(0, 2, (12, 5)).astype("float32")
    result = evaluate(model, split(pictures, labels), NAMES, crop_ratio=1.0)
    answers = np.asarray(model.predict_on_batch(np.stack(pictures).astype("float32")), "float32")
    assert result["auc"] == pytest.approx(roc_auc_score(labels, answers))


def test_names_of_the_columns_of_labels():
    draw = np.random.default_rng(2)
    labels, scores = np.eye(3)[[0, 1, 2, 0]], draw.random((4, 3))
    names = ("crane", "cat", "crane")
    figures = multi_label_figures(labels, scores, names)
    alone = multi_label_figures(labels, scores, ("a", "b", "c"))
    assert [*figures["per_class"]] == ["crane (0)", "cat", "crane (2)"]
    assert [*figures["per_class"].values()] == [*alone["per_class"].values()]
    for others in (names[:2], (*names, "dog")):
        with pytest.raises(ValueError, match=rf"must be 3 names, .* Received: {len(others)}$"):
            multi_label_figures(labels, scores, others)


def test_several_labels_of_a_model_that_gives_logits(pictures):
    """Each class by itself, as for the same model with a sigmoid; a softmax would couple them."""
    model, logits = (
        small_model(classifier_activation=activation) for activation in ("sigmoid", None)
    )
    logits.set_weights(model.get_weights())
    labels = np.random.default_rng(1).integers(0, 2, (12, 5)).astype("float32")
    found, wanted = (
        evaluate(x, split(pictures, labels), NAMES, crop_ratio=1.0) for x in (logits, model)
    )
    for name in NAMES:
        assert found["per_class"][name] == pytest.approx(wanted["per_class"][name], rel=1e-5)
