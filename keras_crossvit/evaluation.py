"""Evaluates a model on labelled images."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_crossvit.common.checks import check_positive_int, escaped
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.pipeline import evaluation_batches, labels_in_one_line
from keras_crossvit.data.sources import Split
from keras_crossvit.models import CrossViT, branch_logits
from keras_crossvit.models.answers import (
    check_finite,
    check_one_image,
    gives_logits,
    probabilities,
)
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.models.preprocessing import as_model_takes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES = 40  # more class names than this are illegible beside a confusion matrix


def evaluate(
    model: keras.Model,
    split: Split,
    class_names: Sequence[str],
    batch_size: int = 64,
    crop_ratio: float | None = None,
    branches: bool = False,
    exif_orientation: bool = True,
) -> dict[str, Any]:
    """Computes top-1 and top-5 accuracy, also per class and, on request, per branch.

    Args:
        model: A classifier with an output for each class.
        split: The images and labels, e.g. `open_source(...).validation`.
        class_names: The class names, in the order of the labels.
        batch_size: Number of images per batch.
        crop_ratio: As in `evaluation_transform`; `None` for the published one at the model's size.
        branches: Whether to evaluate each branch's own head as well, by its logits (table 6,
            "single branch").
        exif_orientation: Whether images are turned upright as their EXIF says; `False` to
            compare with timm, which does not.

    Returns:
        A dictionary: `pictures` (the number of images that were read), `unreadable` (the number
        that were not, which do not count), `top1` and, with more than five classes, `top5`
        (accuracies in [0, 1] of the model's output), `per_class` (`{name: accuracy, or None for a
        class without images}`; names that occur twice are followed by their number), `confusion`
        (array of counts `(classes, classes)`: a row for each true class, a column for each
        predicted class), and with `branches` also `branches` (`{name: {"top1", "top5"}}`). For
        images with several labels: `pictures`, `unreadable` and what `multi_label_figures` returns
        for the model's probabilities.

    Raises:
        ValueError: If the model has another number of classes or the same in another order, takes
            an image for each branch or of no known size, or answers with NaN; or if a label lies
            outside the classes, or no image can be read.
    """
    classes, class_names = len(class_names), distinct_names(class_names)
    _check_model(model, class_names)
    size = _image_shape(model)
    check_positive_int("batch_size", batch_size)
    ratio = crop_ratio_for(size, crop_ratio)
    batches = evaluation_batches(
        split, classes, size, batch_size, ratio, exif_orientation=exif_orientation
    )
    heads = branch_logits(model) if branches else None
    if not split.size:
        raise ValueError("`split` must hold images. Received: none")
    several = bool(split.label_shape)
    labels, answers, unreadable = [], [], 0
    with labels_in_one_line(split.root or "`split`"):
        for images, truth, counted in batches:
            readable = counted.numpy() > 0
            unreadable += int((~readable).sum())
            truth, scores = truth.numpy()[readable], _scores(model, heads, images, several)
            labels.append(truth if several else truth.argmax(1))
            found = scores if several else {name: _best(x) for name, x in scores.items()}
            answers.append({name: np.asarray(x)[readable] for name, x in found.items()})
    truth = np.concatenate(labels)
    if not len(truth):
        raise ValueError(f"`split` must hold images. Received: {unreadable} unreadable files")
    joined = {name: np.concatenate([batch[name] for batch in answers]) for name in answers[0]}
    summary = _of_several_labels if several else _of_one_label
    return {
        "pictures": len(truth),
        "unreadable": unreadable,
        **summary(truth, joined, class_names),
    }


def _check_model(model, class_names):
    check_one_image(model)
    if model.output_shape[-1] != len(class_names):
        raise ValueError(
            f"`model` must have the {len(class_names)} classes of the images. "
            f"Received: a model with {model.output_shape[-1]}"
        )
    own = distinct_names(getattr(model, "labels", None) or class_names)
    moved = next(((a, b) for a, b in zip(class_names, own, strict=True) if a != b), None)
    if moved and set(own) == set(class_names):
        raise ValueError(
            "`class_names` must be in the order of the model's labels: open the data by "
            "source.with_classes(model.labels). "
            f"Received: {moved[0]!r} where the model has {moved[1]!r}"
        )


def _image_shape(model):
    """`(height, width, channels)` of the images to read."""
    shape = image_shape(model) if isinstance(model, CrossViT) else model.input_shape[1:]
    if None in shape:
        raise ValueError(
            "`model` must take images of a known size, to which files are resized. "
            f"Received: a model with an input of shape {model.input_shape}"
        )
    return shape


def _of_several_labels(truth, scores, class_names):
    """The figures for images with any number of labels."""
    figures = {name: multi_label_figures(truth, x, class_names) for name, x in scores.items()}
    result = figures.pop("model")
    branches = {
        name: {key: found[key] for key in ("mean_average_precision", "auc", "f1")}
        for name, found in figures.items()
    }
    return {**result, "branches": branches} if branches else result


def multi_label_figures(
    labels: np.ndarray, scores: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Scikit-learn's figures for images with any number of labels.

    Args:
        labels: `(N, classes)` of zeros and ones.
        scores: `(N, classes)`, higher for a label that applies: probabilities or logits.
        class_names: The class names, in the order of the labels.

    Returns:
        `mean_average_precision`, `auc` and `f1` (the means over the classes that some images have
        and others lack), `per_class` (`{name: {"average_precision", "auc", "f1", "threshold"}}`,
        the highest F1 and the threshold that gives it, or `None` for the other classes; names
        that occur twice are followed by their number)
        and `thresholds`, precision, recall and F1 of all labels together at nine scores.

    Raises:
        ValueError: If there are not as many names as columns.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    if len(class_names) != labels.shape[1]:
        raise ValueError(
            f"`class_names` must be {labels.shape[1]} names, one for each column of `labels`. "
            f"Received: {len(class_names)}"
        )
    per_class: dict[str, dict[str, float] | None] = {}
    for number, name in enumerate(distinct_names(class_names)):
        truth, found = labels[:, number], scores[:, number]
        if truth.min() == truth.max():
            per_class[name] = None
            continue
        precision, recall, thresholds = precision_recall_curve(truth, found)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        per_class[name] = {
            "average_precision": float(average_precision_score(truth, found)),
            "auc": float(roc_auc_score(truth, found)),
            "f1": float(f1[best]),
            "threshold": float(thresholds[best]),
        }
    there = [figures for figures in per_class.values() if figures is not None]
    means = {
        key: float(np.mean([figures[key] for figures in there])) if there else float("nan")
        for key in ("average_precision", "auc", "f1")
    }
    return {
        "mean_average_precision": means["average_precision"],
        "auc": means["auc"],
        "f1": means["f1"],
        "per_class": per_class,
        "thresholds": _threshold_table(labels, scores),
    }


def _threshold_table(labels, scores):
    """Precision, recall and F1 of all labels together, at nine quantiles of the scores."""
    rows = []
    for threshold in np.quantile(scores, np.arange(1, 10) / 10):
        chosen = scores >= threshold
        right = float((chosen * labels).sum())
        precision, recall = right / max(chosen.sum(), 1), right / max(labels.sum(), 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-12)
        row = {"threshold": threshold, "precision": precision, "recall": recall, "f1": f1}
        rows.append({key: float(value) for key, value in row.items()})
    return rows


def _scores(model, heads, images, several):
    """`{"model": (B, classes)}` for pixels in 0..255; with `heads` the same for each branch.

    Probabilities if images have several labels and the model's own activation is known; of at
    least 32 bits, since scikit-learn takes no bfloat16.
    """
    images = as_model_takes(model, np.asarray(images))  # which any backend takes, unlike tensors
    if heads is None:
        scores = {"model": check_finite(model.predict_on_batch(images))}
    else:
        logits = {name: check_finite(x) for name, x in heads.predict_on_batch(images).items()}
        scores = {"model": sum(logits.values()) / len(logits), **logits}  # their mean
    if several and isinstance(model, CrossViT) and (heads is not None or gives_logits(model)):
        scores = {name: probabilities(model, x, several=True) for name, x in scores.items()}
    return {name: x.astype(np.promote_types(x.dtype, "float32")) for name, x in scores.items()}


def _best(scores):
    """The five classes with the highest scores of each row, the highest first."""
    return np.argsort(-np.asarray(scores, "float32"), axis=1, kind="stable")[:, :5]


def _of_one_label(labels, best, class_names):
    classes = len(class_names)
    accuracies = {}
    for name, predicted in best.items():
        right = predicted == labels[:, None]
        accuracies[name] = {"top1": float(right[:, 0].mean())}
        if classes > 5:  # otherwise any answer is one of the first five
            accuracies[name]["top5"] = float(right.any(1).mean())
    confusion = np.zeros((classes, classes), "int64")
    np.add.at(confusion, (labels, best["model"][:, 0]), 1)
    counts, correct = confusion.sum(1), confusion.diagonal()
    per_class = {
        name: correct[row] / counts[row] if counts[row] else None
        for row, name in enumerate(class_names)
    }
    result = {**accuracies.pop("model"), "per_class": per_class, "confusion": confusion}
    return {**result, "branches": accuracies} if accuracies else result


def plot_confusion(
    confusion: np.ndarray,
    class_names: Sequence[str],
    path: str | os.PathLike | None = None,
) -> "Figure":
    """Draws a confusion matrix: a row for each true class, shaded by shares of the row.

    Args:
        confusion: Counts `(classes, classes)`, as from `evaluate`.
        class_names: The class names; left out if there are too many to read.
        path: The PNG file to write, if any.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display

    side = min(12.0, 3 + 0.3 * len(class_names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    drawn = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class")
    if len(class_names) <= _MOST_NAMES:
        ticks, names = range(len(class_names)), [*map(escaped, class_names)]
        axis.set_xticks(ticks, names, rotation=90, parse_math=False)
        axis.set_yticks(ticks, names, parse_math=False)
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{confusion[row, column]}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(drawn, shrink=0.8, label="share of the true class")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
