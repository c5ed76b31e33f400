"""Images with several labels: mean average precision, counted and in a run's log."""

import csv
import dataclasses
import types

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_crossvit.data.sources import open_source
from keras_crossvit.training import finish, train
from keras_crossvit.training.assembly import check_fit
from keras_crossvit.training.steps import COLUMNS, Step, mean_average_precision
from keras_crossvit.training.steps.losses import RowLoss
from keras_crossvit.training.steps.precision import score_counts, softmax_scores
from tests.training.tiny import RECIPE

pytestmark = pytest.mark.slow

DRAW = np.random.default_rng(0)
NAMES = ("ant", "bee", "cat")


def rounded(logits):
    """Logits as the counts distinguish them."""
    return np.floor(np.clip(logits, -16, 16 - 1e-3) * 32)


def test_precision_is_that_of_scikit_learn_on_rounded_scores():
    labels = DRAW.integers(0, 2, (200, 5)).astype("float32")
    labels[:, 3], labels[:, 4] = 0, 1
    logits = DRAW.normal(0, 8, (200, 5)).astype("float32")  # some beyond the outermost ranges
    weights = np.ones(200, "float32")
    weights[150:] = 0
    halves = [score_counts(labels[s], logits[s], weights[s]) for s in (slice(90), slice(90, None))]
    counts = sum(np.asarray(half, "float64") for half in halves)
    truth, scores = labels[:150, :3], rounded(logits[:150, :3])
    assert mean_average_precision(counts) == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_precision_is_that_of_the_losses_own_probabilities(kind):
    """Those of a softmax do not change with a number that is added to all logits of a row."""
    labels = DRAW.integers(0, 2, (200, 3)).astype("float32")
    logits = DRAW.normal(0, 2, (200, 3)) + DRAW.normal(0, 5, (200, 1))
    scores = logits
    if kind == "softmax":
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        scores = np.log(probabilities / (1 - probabilities))
    loss = RowLoss(kind)
    step = types.SimpleNamespace(loss=loss, held_out_loss=loss, several_labels=True)
    arguments = labels, logits.astype("float32"), np.ones(200, "float32"), np.float32(0)
    counts = np.asarray(Step.held_out_sums(step, *arguments))[COLUMNS:].reshape(2, 3, -1)
    wanted = average_precision_score(labels, rounded(scores))
    assert mean_average_precision(counts) == pytest.approx(wanted, abs=1e-3)


def test_scores_of_a_softmax_that_is_sure():
    logits = np.array([[1000.0, 980.0, -1000.0], [3.0, 3.0, 3.0]], "float32")
    scores = np.asarray(softmax_scores(logits))
    np.testing.assert_allclose(scores, [[20, -20, -2000], [-np.log(2)] * 3], rtol=1e-5)


def test_without_a_class_to_tell_apart_there_is_no_precision():
    logits = np.zeros((4, 2), "float32")
    counts = score_counts(np.array([[1, 0]] * 4, "float32"), logits, np.ones(4, "float32"))
    assert np.isnan(mean_average_precision(np.asarray(counts)))


def test_a_run_logs_it_and_keeps_the_epoch_with_the_highest(tmp_path, monkeypatch, caplog):
    rows = ["path,labels,split"]
    for number in range(24):
        labels = [name for name, there in zip(NAMES, DRAW.integers(0, 2, 3), strict=True) if there]
        pixels = DRAW.integers(0, 255, (40, 40, 3), "uint8")
        keras.utils.save_img(tmp_path / f"{number}.png", pixels, scale=False)
        split = "train" if number < 16 else "validation"
        rows.append(f"{number}.png,{'|'.join(labels or ['ant'])},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    monkeypatch.setattr(finish, "export_saved_model", lambda model, folder, **values: folder)
    config = dataclasses.replace(
        RECIPE,
        dataset=f"csv:{tmp_path / 'labels.csv'}",
        output_dir=str(tmp_path / "run"),
        train_split="train",
        validation_split=None,
        batch_size=8,
        mixing_batch_size=None,
        crop_ratio=1.0,
        augment="none",
        mixup_alpha=0,
        cutmix_alpha=0,
        loss="sigmoid",
        best="val_mean_average_precision",
    )
    with caplog.at_level("WARNING", "keras_crossvit"):
        check_fit(dataclasses.replace(config, loss="softmax"), open_source(config.dataset), None)
    assert "loss=sigmoid makes each label a question of its own" in caplog.text
    one = dataclasses.replace(open_source(config.dataset), class_names=("only",))
    with pytest.raises(ValueError, match=r"two classes to tell apart.* with 'only' alone"):
        check_fit(config, one, None)
    result = train(config)
    labels = open_source(config.dataset).validation.labels()
    images = [keras.utils.load_img(tmp_path / f"{number}.png") for number in range(16, 24)]
    probabilities = result["model"].predict_on_batch(np.stack(images).astype("float32"))
    scores = rounded(np.log(probabilities / (1 - probabilities)))
    found = result["mean_average_precision"]
    assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-3)
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        column = [float(row["val_mean_average_precision"]) for row in csv.DictReader(file)]
    assert column[-1] == found
    assert result["best_epoch"] == int(np.argmax(column))
