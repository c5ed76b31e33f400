"""How good frozen features are: nearest neighbours and a linear probe, as DINO measures them.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.pipeline import evaluation_batches
from keras_crossvit.data.sources import Source, Split
from keras_crossvit.models import CrossViT
from keras_crossvit.models.answers import check_finite, check_one_image
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.models.preprocessing import as_model_takes

_NEIGHBOURS, _TEMPERATURE = 20, 0.07  # DINO's
_AT_A_TIME = 256  # rows that are compared with all training features


def features_of(
    model: CrossViT,
    split: Split,
    classes: int,
    batch_size: int = 64,
    crop_ratio: float | None = None,
    exif_orientation: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The features of a split's readable images, `(N, C_small + C_large)`, and labels `(N,)`.

    They are what the heads see: the normalised class tokens of both branches.

    Raises:
        ValueError: If the model has no heads or takes an image for each branch, an image has
            several labels, no image can be read, or the features are NaN.
    """
    if not isinstance(model, CrossViT) or not model.include_top:
        raise ValueError(
            "`model` must be a CrossViT with include_top=True. "
            f"Received: {getattr(model, 'name', model)!r}"
        )
    check_one_image(model)
    if split.label_shape:
        raise ValueError("`split` must have one label an image. Received: one with several")
    size = image_shape(model)
    check_positive_int("batch_size", batch_size)
    reading = crop_ratio_for(size, crop_ratio), None, exif_orientation
    heads = [layers.head.input for layers in model.branches.values()]
    body = keras.Model(model.input, heads)
    features, labels = [], []
    for images, one_hot, counted in evaluation_batches(split, classes, size, batch_size, *reading):
        readable = np.asarray(counted) > 0
        images = as_model_takes(model, np.asarray(images))
        tokens = keras.tree.flatten(body.predict_on_batch(images))
        tokens = check_finite(np.concatenate(tokens, axis=-1))
        features.append(tokens.astype("float32")[readable])
        labels.append(np.asarray(one_hot).argmax(1)[readable])
    if not any(map(len, labels)):
        raise ValueError(
            "`split` must hold images that can be read. "
            f"Received: {split.size} files, none of which can"
        )
    return np.concatenate(features), np.concatenate(labels)


def knn(model: CrossViT, source: Source, **reading: Any) -> dict[str, float]:
    """Top-1 of the 20 nearest training images by cosine, which vote by exp(cosine / 0.07).

    Args:
        model: As in `features_of`.
        source: The `Source` of the images.
        **reading: Further arguments of `features_of`.

    Returns:
        `{"top1", "neighbours", "temperature"}`.
    """
    return probe(model, source, ["knn"], **reading)["knn"]


def linear_probe(model: CrossViT, source: Source, **reading: Any) -> dict[str, float]:
    """Top-1 of scikit-learn's logistic regression on the standardised training features.

    Args and result as in `knn`, without its settings.
    """
    return probe(model, source, ["linear_probe"], **reading)["linear_probe"]


def probe(
    model: CrossViT, source: Source, names: Sequence[str], **reading: Any
) -> dict[str, dict[str, float]]:
    """What `knn` and `linear_probe` return, from features that are computed once for both.

    Args:
        model: As in `knn`.
        source: As in `knn`.
        names: Which of the two, by name.
        **reading: As in `knn`.

    Returns:
        `{name: result}`.
    """
    if "linear_probe" in names:
        import sklearn.linear_model  # noqa: F401, if it is missing, before all images are read

    classes = len(source.class_names)
    known, asked = (
        features_of(model, split, classes, **reading)
        for split in (source.train, source.validation)
    )
    return {name: _MEASURES[name](known, asked, classes) for name in names}


def _knn(training, held_out, classes):
    (known, answers), (asked, truth) = training, held_out
    known, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, asked))
    neighbours = min(_NEIGHBOURS, len(known))
    right = 0
    for start in range(0, len(asked), _AT_A_TIME):
        cosines = asked[start : start + _AT_A_TIME] @ known.T
        nearest = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
        weights = np.exp(np.take_along_axis(cosines, nearest, 1) / _TEMPERATURE)
        votes = np.zeros((len(cosines), classes))
        np.add.at(votes, (np.arange(len(cosines))[:, np.newaxis], answers[nearest]), weights)
        right += int((votes.argmax(1) == truth[start : start + _AT_A_TIME]).sum())
    return {"top1": right / len(asked), "neighbours": neighbours, "temperature": _TEMPERATURE}


def _linear_probe(training, held_out, classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(*training)
    return {"top1": float(regression.score(*held_out))}


_MEASURES = {"knn": _knn, "linear_probe": _linear_probe}
