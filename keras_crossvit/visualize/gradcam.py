"""Grad-CAM for two branches."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.checks import did_you_mean
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.typing import Tensor
from keras_crossvit.models import CrossViT
from keras_crossvit.models.answers import check_finite, class_names, probabilities
from keras_crossvit.models.quantization import quantization_mode
from keras_crossvit.visualize.graph import Graph, to_array
from keras_crossvit.visualize.maps import resize_maps


def gradcam(
    model: CrossViT, images: Tensor, classes: Any = None, stage: int = -1
) -> dict[str, np.ndarray]:
    """Shows which parts of an image are evidence for a class.

    This is Grad-CAM (Selvaraju et al., ICCV 2017), applied to the input of each branch's last
    encoder in a stage. From there, a token of either branch still affects both heads: its own
    through self-attention, the other one through cross-attention. One backward pass from the
    model's logit therefore gives a map for each branch, in the same units.

    For the patch tokens A `(N, C)` of a branch and the gradient G of the logit with respect to
    them, the map is `relu(A w)`, where `w` `(C,)` is the mean of G over the patches.

    Args:
        model: A CrossViT with `include_top=True` and any fusion, or a model of one branch,
            whatever its `classifier_activation`; it is not changed.
        images: `(B, H, W, 3)`, in the model's input range.
        classes: The class to explain, its number or one of `model.labels`: one for all images, or
            one for each, `(B,)`; `None` for the predicted classes.
        stage: Index of the stage, from 0; negative indices count from the end. In a model of
            one branch, each encoder is a stage.

    Returns:
        `{"small": (B, rows, columns), "large": (B, rows, columns), "both": (B, H, W)}`
        (without "small" for a model of one branch), not negative. "both" is the sum of the
        branches' maps, each resized to the image without changing its total.

    Raises:
        ValueError: If the model has no top or answers with NaN, there is no such class or stage,
            or the images do not fit the model.
    """
    graph = _graph_with_top(model)
    images = graph.check_images(images)
    chosen = graph.stage(stage)
    tokens = _enter_last_encoder(graph, images, chosen)
    if classes is None:
        classes = check_finite(to_array(_finish(graph, tokens, chosen))).argmax(axis=1)
    classes = _check_classes(graph, images, classes)
    wanted = ops.convert_to_tensor(np.eye(model.classes, dtype="float32")[classes])

    def logit(*arrays):
        logits = _finish(graph, dict(zip(tokens, arrays, strict=True)), chosen)
        return ops.sum(logits * wanted)

    maps = {}
    in_graph = quantization_mode(model) == "float8"  # for which Keras has no eager gradient
    gradients = gradients_of(logit, list(tokens.values()), in_graph)
    for (branch, x), gradient in zip(tokens.items(), gradients, strict=True):
        first = int(graph.class_token)
        channel_means = to_array(gradient)[:, first:].mean(axis=1)
        cam = np.einsum("bnc,bc->bn", to_array(x)[:, first:], channel_means)
        maps[branch] = graph.on_grid(np.maximum(cam, 0), branch)
    height, width = images.shape[1:3]
    maps["both"] = sum(_spread(x, height, width) for x in maps.values())
    return maps


def class_scores(model: CrossViT, images: Tensor, classes: Any = None) -> list[tuple[str, float]]:
    """The names and scores of the classes that `gradcam` explains, for the title of its figure.

    Args:
        model: As in `gradcam`.
        images: As in `gradcam`.
        classes: As in `gradcam`.

    Returns:
        `(name, score)` for each image: the model's label of the class, or its number, and its
        probability in [0, 1].

    Raises:
        ValueError: As in `gradcam`.
    """
    graph = _graph_with_top(model)
    images = graph.check_images(images)
    logits = check_finite(to_array(graph.logits(graph.tokens_after(images, graph.stages[-1]))))
    if classes is None:
        classes = logits.argmax(axis=1)
    scores, names = probabilities(model, logits), class_names(model)
    found = enumerate(_check_classes(graph, images, classes))
    return [(names[index], float(scores[row, index])) for row, index in found]


def _graph_with_top(model):
    graph = Graph(model)
    if not model.include_top:
        raise ValueError(
            "`model` must be a classifier, with include_top=True: Grad-CAM explains a logit. "
            "Received: a model without a top"
        )
    return graph


def _enter_last_encoder(graph, images, stage):
    tokens = graph.tokens_before(images)[graph.stages.index(stage)]
    for branch, encoders in stage.encoders.items():
        for block in encoders[:-1]:
            tokens[branch] = block(tokens[branch], training=False)
    return tokens


def _finish(graph, tokens, stage):
    """The logits `(B, classes)` for tokens that enter the last encoders of a stage."""
    tokens = {x: stage.encoders[x][-1](tokens[x], training=False) for x in tokens}
    tokens = stage.fuse(tokens)
    for later in graph.stages[graph.stages.index(stage) + 1 :]:
        for branch, encoders in later.encoders.items():
            for block in encoders:
                tokens[branch] = block(tokens[branch], training=False)
        tokens = later.fuse(tokens)
    return graph.logits(tokens)


def _check_classes(graph, images, classes):
    """The classes to explain, one for each image, integers `(B,)`."""
    batch, count = images.shape[0], graph.model.classes
    given = np.asarray(classes)
    chosen = np.broadcast_to(given, (batch,)) if given.ndim == 0 else given
    names = distinct_names(class_names(graph.model))
    # pandas holds text as objects, TensorFlow as bytes.
    labels = [_text(x) for x in chosen.ravel().tolist()]
    if all(isinstance(label, str) for label in labels):
        numbers = {name: x for x, name in enumerate(names)}
        chosen = np.array([numbers.get(label, -1) for label in labels])
    whole = np.issubdtype(chosen.dtype, np.integer) and chosen.shape == (batch,)
    if not whole or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(
            f"`classes` must be integers from 0 to {count - 1}, or labels of the model (such as "
            f"{names[0]!r}), one for all or one for each of the {batch} images. "
            f"Received: classes={given.tolist()!r}{did_you_mean(given.tolist(), names)}"
        )
    return chosen


def _text(label):
    return label.decode(errors="replace") if isinstance(label, bytes) else label


def gradients_of(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], in_graph: bool = False
) -> list[Tensor]:
    """The gradients of a scalar function at `tensors`, on any backend; variables get none.

    Args:
        function: A function of these tensors that returns a scalar.
        tensors: The values at which to compute the gradients.
        in_graph: Whether TensorFlow traces the function, which takes longer.

    Returns:
        A gradient for each tensor, in its shape.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if in_graph:
            function = tf.function(function, autograph=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return tape.gradient(value, tensors)
    if backend == "torch":
        import torch

        tensors = [x.detach().requires_grad_() for x in tensors]
        with torch.enable_grad():
            return list(torch.autograd.grad(function(*tensors), tensors))
    import jax

    return list(jax.grad(function, argnums=tuple(range(len(tensors))))(*tensors))


def _spread(maps, height, width):
    """Resizes maps `(B, rows, columns)` to `(B, height, width)`, without changing their sums."""
    spread = resize_maps(maps, height, width)
    before, after = (x.sum(axis=(1, 2), keepdims=True) for x in (maps, spread))
    return spread * np.divide(before, after, out=np.zeros_like(after), where=after > 0)
