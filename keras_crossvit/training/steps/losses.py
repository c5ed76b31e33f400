"""The loss of each row of a batch."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.models import CrossViT
from keras_crossvit.models.preprocessing import as_model_takes


class Teacher:
    """A model whose answers are learnt alongside the labels.

    Args:
        model: A classifier of the same classes and images, any Keras model. Whether it answers
            with logits, or with probabilities by a softmax or a sigmoid, is read from its last
            layer; if that has no activation to read, answers to images of noise tell.
        kind: "soft" learns its distribution over the classes (Hinton et al., "Distilling the
            Knowledge in a Neural Network", 2015), "hard" its top class (DeiT, equation 3).
        alpha: The teacher's share of the loss, in [0, 1].
        temperature: Divisor of the logits in the soft loss, positive.
        image_shape: `(H, W, channels)` of the images, if not `model.input_shape` says it, as in a
            subclassed model or one for images of any size.
    """

    def __init__(
        self,
        model: keras.Model,
        kind: str = "soft",
        alpha: float = 0.5,
        temperature: float = 1.0,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.model, self.kind, self.alpha, self.temperature = model, kind, alpha, temperature
        self._answers, self._activation = model, "linear"
        if isinstance(model, CrossViT) and model.logits is not None:
            self._answers = keras.Model(model.input, model.logits)
        else:
            shape = image_shape or model.input_shape[1:]
            self._activation = _last_activation(model) or _activation_of_answers(model, shape)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables of the model."""
        return self.model.variables

    def logits(self, images: Tensor) -> Tensor:
        """float32 `(B, classes)`, up to a constant added to each row."""
        if isinstance(self.model, CrossViT):
            images = as_model_takes(self.model, images)
        found = ops.cast(self._answers(images, training=False), "float32")
        if self._activation == "softmax":
            found = ops.log(ops.maximum(found, 1e-12))
        elif self._activation == "sigmoid":
            found = ops.clip(found, 1e-12, 1 - 1e-7)
            found = ops.log(found) - ops.log1p(-found)
        return ops.stop_gradient(found)


def _last_activation(model):
    """The name of a model's last activation, if it is known here; `None` if nothing tells."""
    layer = model
    while isinstance(layer, keras.Model):
        # A subclassed model has none, and its layers are in any order.
        operations = getattr(layer, "operations", None)
        parts = layer.layers if isinstance(layer, keras.Sequential) else operations
        if not parts:
            return None
        layer = parts[-1]
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if not isinstance(layer, (keras.layers.Dense, keras.layers.Activation)):
        return None
    name = getattr(layer.activation, "__name__", None)
    # A linear `Activation` may only cast what a softmax has made.
    told = name == "linear" and isinstance(layer, keras.layers.Dense)
    return name if told or name in ("softmax", "sigmoid") else None


def _activation_of_answers(model, shape):
    """The same, judged by the answers to images of many shades and contrasts."""
    draw = np.random.default_rng(0)
    ends = np.sort(draw.uniform(0, 255, (2, 16, 1, 1, shape[-1])), axis=0)
    images = draw.uniform(*ends, (16, *shape)).astype("float32")
    found = ops.convert_to_numpy(model(images, training=False)).astype("float32")
    # A sum of a thousand in bfloat16 is only this close to 1.
    if found.min() >= 0 and np.allclose(found.sum(axis=-1), 1, atol=0.05):
        return "softmax"
    return "sigmoid" if found.min() >= 0 and found.max() <= 1 else "linear"


@dataclasses.dataclass(frozen=True)
class RowLoss:
    """The loss of each row; 0 where the labels are all 0, as for an unreadable image.

    Args:
        kind: "softmax": the cross-entropy with one distribution over all classes. "sigmoid": the
            mean of the classes' binary cross-entropies, each class a question of its own, as in
            timm.
        class_weights: float `(classes,)`: factors, with a softmax of each class' part of the
            cross-entropy, with a sigmoid of the part of rows that have the label; `None` for 1.
        teacher: A `Teacher`, only with a softmax; `None` for none.
    """

    kind: str = "softmax"
    class_weights: np.ndarray | None = None
    teacher: Teacher | None = None

    def __call__(self, labels: Tensor, logits: Tensor, teacher: Tensor | None = None) -> Tensor:
        """The losses, float32 `(B,)`.

        Args:
            labels: `(B, classes)`.
            logits: `(B, classes)`.
            teacher: What `Teacher.logits` returned for these images.
        """
        logits = ops.cast(logits, "float32")
        weights = 1.0 if self.class_weights is None else ops.convert_to_tensor(self.class_weights)
        if self.kind == "sigmoid":
            return _binary(labels, logits, weights)
        # Not ops.categorical_crossentropy: its gradient on TensorFlow assumes labels that sum to
        # 1, which weighted ones, and those of unreadable images, do not.
        losses = -ops.sum(labels * weights * ops.log_softmax(logits), axis=-1)
        if self.teacher is None or teacher is None:
            return losses
        readable = ops.cast(ops.any(labels > 0, axis=-1), "float32")
        learnt = self._distilled(logits, teacher) * readable
        return (1 - self.teacher.alpha) * losses + self.teacher.alpha * learnt

    def _distilled(self, logits, teacher):
        if self.teacher.kind == "hard":
            first = ops.one_hot(ops.argmax(teacher, axis=-1), logits.shape[-1])
            return ops.categorical_crossentropy(first, logits, from_logits=True)
        temperature = self.teacher.temperature
        ours, theirs = (ops.log_softmax(x / temperature) for x in (logits, teacher))
        divergence = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
        return divergence * temperature**2


def _binary(labels, logits, weights):
    present, absent = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    losses = -ops.mean(weights * labels * present + (1 - labels) * absent, axis=-1)
    return losses * ops.cast(ops.any(labels > 0, axis=-1), "float32")


def balanced_weights(labels: np.ndarray, classes: int, kind: str) -> np.ndarray:
    """Weights that make all classes count equally, `(classes,)`, for `RowLoss`.

    With a softmax `N / (classes * rows of the class)`, as in scikit-learn; with a sigmoid the
    rows without the label over those with it.

    Args:
        labels: int `(N,)`, or `(N, classes)` of zeros and ones.
        classes: Number of classes.
        kind: As in `RowLoss`.

    Raises:
        ValueError: If a class has no row or, with a sigmoid, all rows.
    """
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        raise ValueError(
            "`class_weights` must be null where a class has no image to train on. "
            f"Received: class_weights='balanced', and class {int(counts.argmin())} has none"
        )
    if kind == "sigmoid":
        if counts.max() == len(labels):
            raise ValueError(
                "`class_weights` must be null where all images have the same label, from "
                "which nothing can be learnt. Received: class_weights='balanced', and all have "
                f"class {int(counts.argmax())}"
            )
        return ((len(labels) - counts) / counts).astype("float32")
    return (len(labels) / (classes * counts)).astype("float32")
