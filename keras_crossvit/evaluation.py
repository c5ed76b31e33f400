"""How good a model is on a labelled set of pictures."""

import numpy as np

from keras_crossvit.data.images import default_crop_ratio
from keras_crossvit.data.pipeline import evaluation_batches
from keras_crossvit.models import branch_logits

_MOST_NAMES = 40  # classes whose names can be read beside a picture of the confusion matrix


def evaluate(model, split, class_names, batch_size=64, crop_ratio=None, branches=False):
    """Top-1 and top-5 accuracy, per class and, if asked for, per branch.

    Args:
        model: A classifier with one output per class.
        split: A `Split`, e.g. `open_source(...).validation`.
        class_names: Names of the classes, in the order of the labels.
        batch_size: Pictures at a time.
        crop_ratio: As in `evaluation_transform`; `None` for the published one of the size.
        branches: Whether to evaluate each branch's own head as well (table 6, "single
            branch"), by its logits.

    Returns:
        A dictionary: `pictures`, `unreadable` (not counted), `top1`, `top5` (shares, of the
        model's output), `per_class` (`{name: share or None for a class without pictures}`),
        `confusion` (array `(classes, classes)` of counts: a row per true class, a column per
        answer), and with `branches` also `branches` (`{name: {"top1", "top5"}}`).

    Raises:
        ValueError: If the model has another number of classes, or no picture can be read.
    """
    classes = len(class_names)
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"`model` must have the {classes} classes of the pictures. "
            f"Received: a model with {model.output_shape[-1]}"
        )
    size = model.input_shape[1:3]
    ratio = crop_ratio or default_crop_ratio(size)
    batches = evaluation_batches(split, classes, size, batch_size, ratio)
    heads = branch_logits(model) if branches else None
    rows, unreadable = [], 0
    for images, one_hot, weights in batches:
        good = weights.numpy() > 0
        unreadable += int((~good).sum())
        scores = _scores(model, heads, images)
        labels = one_hot.numpy().argmax(1)[good]
        rows.append((labels, {name: _best(x[good]) for name, x in scores.items()}))
    labels = np.concatenate([batch for batch, _ in rows])
    if not len(labels):
        raise ValueError(f"`split` must hold pictures. Received: {unreadable} unreadable files")
    best = {name: np.concatenate([batch[name] for _, batch in rows]) for name in rows[0][1]}
    return _summary(labels, best, class_names, unreadable)


def _scores(model, heads, images):
    """`{"model": (B, classes)}`, and the same of each branch."""
    if heads is None:
        return {"model": model.predict_on_batch(images)}
    logits = heads.predict_on_batch(images)
    return {"model": sum(logits.values()) / len(logits), **logits}  # the logits' mean


def _best(scores):
    """The five best classes of each row, the best first."""
    return np.argsort(-np.asarray(scores, "float32"), axis=1, kind="stable")[:, :5]


def _summary(labels, best, class_names, unreadable):
    classes = len(class_names)
    shares = {
        name: {
            "top1": float((answers[:, 0] == labels).mean()),
            "top5": float((answers == labels[:, None]).any(1).mean()),
        }
        for name, answers in best.items()
    }
    confusion = np.zeros((classes, classes), "int64")
    np.add.at(confusion, (labels, best["model"][:, 0]), 1)
    counts, right = confusion.sum(1), confusion.diagonal()
    per_class = {
        name: right[row] / counts[row] if counts[row] else None
        for row, name in enumerate(class_names)
    }
    result = {
        "pictures": len(labels),
        "unreadable": unreadable,
        **shares.pop("model"),
        "per_class": per_class,
        "confusion": confusion,
    }
    return {**result, "branches": shares} if shares else result


def plot_confusion(confusion, class_names, path=None):
    """Draws a confusion matrix: a row per true class, shares of the row as shades.

    Args:
        confusion: Counts `(classes, classes)`, as of `evaluate`.
        class_names: Names of the classes; left out where there are too many to read.
        path: The PNG file to write; `None` writes none.

    Returns:
        The matplotlib `Figure`.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a screen

    side = min(12.0, 3 + 0.3 * len(class_names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="answer", ylabel="true class")
    if len(class_names) <= _MOST_NAMES:
        ticks = range(len(class_names))
        axis.set_xticks(ticks, class_names, rotation=90)
        axis.set_yticks(ticks, class_names)
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{confusion[row, column]}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(picture, shrink=0.8, label="share of the true class")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
