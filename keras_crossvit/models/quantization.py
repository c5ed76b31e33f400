"""Precision of a model's layers: their dtype policy, and `model.quantize`."""

import contextlib
import gc
import json
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_crossvit.common.files import as_json
from keras_crossvit.weights.names import path_in


def check_dtype(dtype: Any) -> keras.DTypePolicy:
    """The policy of the `dtype` argument of `CrossViT`; `None` is the global one.

    Raises:
        ValueError: If it is not one floating-point policy for all layers.
    """
    given = keras.config.dtype_policy() if dtype is None else dtype
    try:
        policy = keras.dtype_policies.get(given)
    except (ValueError, TypeError):
        policy = None
    refused = (keras.dtype_policies.DTypePolicyMap, keras.dtype_policies.QuantizedDTypePolicy)
    if (
        not isinstance(policy, keras.DTypePolicy)
        or isinstance(policy, refused)
        or not keras.backend.is_float_dtype(policy.compute_dtype)
    ):
        raise ValueError(
            "`dtype` must be one Keras dtype policy of floating-point numbers for all layers, or "
            "its name; model.quantize is for others. "
            f"Received: dtype={given!r}{', the global policy' if dtype is None else ''}"
        )
    return policy


def quantization_mode(model: keras.Model) -> str | None:
    """The mode in which `model.quantize` was called, e.g. "int8"; `None` if it was not."""
    quantized = quantized_layers(model)
    return quantized[0]["mode"] if isinstance(quantized, list) else quantized


def quantized_layers(model: keras.Model) -> str | list[dict[str, Any]] | None:
    """How `model.quantize` has changed a model, as JSON can hold it.

    Returns:
        `None` if it was not called; the mode if it was called for all layers with the mode's own
        configuration; otherwise `[{"mode", "config", "layers"}]`: for each kind of layer the
        mode, Keras' serialised configuration and the layers' paths within the model.
    """
    # As Keras chooses: layers without others in them, of a class that says itself how.
    innermost = [x for x in model._flatten_layers() if len(list(x._flatten_layers())) == 1]
    able = [x for x in innermost if "quantize" in vars(type(x))]
    quantized = [x for x in innermost if x.quantization_mode is not None]
    kinds: dict[str, dict[str, Any]] = {}
    for layer in quantized:
        kind = {"mode": layer.quantization_mode, "config": _configuration(layer)}
        paths = kinds.setdefault(json.dumps(kind), {**kind, "layers": []})["layers"]
        paths.append(path_in(model, layer))
    if not kinds:
        return None
    first, *others = kinds.values()
    if not others and quantized == able:
        probe = keras.layers.Dense(1)
        probe.build((None, 1))
        probe.quantize(first["mode"])
        if _configuration(probe) == first["config"]:
            return first["mode"]
    return list(kinds.values())


def _configuration(layer):
    """How a layer was quantised."""
    config = getattr(layer, "quantization_config", None)  # a layer of one's own may have none
    return _without_ids(as_json(keras.saving.serialize_keras_object(config)))


def _without_ids(config):
    """Without the addresses that `model.save` writes for objects that layers may share."""
    if isinstance(config, dict):
        return {key: _without_ids(x) for key, x in config.items() if key != "shared_object_id"}
    return [_without_ids(x) for x in config] if isinstance(config, list) else config


def quantize_again(model: keras.Model, quantized: str | list[dict[str, Any]] | None) -> None:
    """Quantises a new model as another one was, according to its `quantized_layers`.

    Layers that are quantised already stay so: Keras makes those before an `input_tensor` as they
    were saved.
    """
    if isinstance(quantized, str):
        model.quantize(quantized, filters=lambda layer: layer.quantization_mode is None)
        return
    for kind in quantized or ():
        paths, config = set(kind["layers"]), keras.saving.deserialize_keras_object(kind["config"])

        def chosen(layer, paths=paths):
            # Older files have the paths with the name scope that the model was made in.
            listed = path_in(model, layer) in paths or layer.path in paths
            return listed and layer.quantization_mode is None

        model.quantize(kind["mode"], type_check=False, config=config, filters=chosen)


@contextlib.contextmanager
def quick_and_quiet() -> Iterator[None]:
    """A context for Keras' `quantize`, in less time and without its warnings.

    Keras warns of layers that have nothing to quantise (until 3.15 of each, then of all of them at
    once), and collects garbage after each, which with TensorFlow's many objects takes seconds even
    for the smallest model.
    """
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            for text in ("does not have a `quantize` method", "layer.s. were skipped because"):
                warnings.filterwarnings("ignore", message=f".*{text}")
            yield
    finally:
        if not frozen:  # or what the user has frozen would no longer be
            gc.unfreeze()
