"""What the exports need to know of a model: is it a classifier, what it takes and gives."""

import keras

# What a model without preprocessing of its own begins with.
_FIRST_LAYERS = ("small_resize", "large_resize", "small_patch_embed", "large_patch_embed")


def check_classifier(model):
    """The heads of a model that can be exported, the small branch's first.

    Raises:
        ValueError: If `model` is no classifier of this package, has other inputs than one of
            3 channels, or more than one output.
    """
    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    heads = [layers[name] for name in ("small_head", "large_head") if name in layers]
    if not heads or not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a classifier of this package, with include_top=True. Received: "
            f"model={getattr(model, 'name', model)!r}"
        )
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "`model` must have one input of 3 channels, (None, H, W, 3). "
            f"Received: an input of shape {shape}"
        )
    if not isinstance(model.output_shape, tuple):
        raise ValueError(
            "`model` must have one output, (None, classes). "
            f"Received: outputs of shape {model.output_shape}"
        )
    return heads


def check_backend(function):
    """Raises RuntimeError if Keras' backend is not TensorFlow; `function` names the caller."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{function} needs the TensorFlow backend: save the model by `model.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: the backend {keras.backend.backend()!r}"
        )


def takes_pixels(model):
    """Whether the model normalises pixels itself, rather than take normalised images."""
    return model.layers[1].name not in _FIRST_LAYERS


def gives_logits(model):
    """Whether the model answers with logits, rather than with probabilities."""
    activation = getattr(model.layers[-1], "activation", None)
    return activation in (None, keras.activations.linear)
