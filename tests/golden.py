"""The reference values of `tests/data` and the rule that makes their weights and inputs.

A weight depends only on its name in timm and on its shape, so building a model's weights
through the package's name table checks the names, too.
"""

import gzip
import json
import pathlib
import re
import zlib

import numpy as np

import keras_crossvit as kc
from keras_crossvit.weights.checkpoint import assign_state, model_state

DATA = pathlib.Path(__file__).parent / "data"
ATOL = 2e-5  # float32 against float32
ATOL_F64 = 1e-5  # against the float64 run

_RULES = (
    (r"(^|\.)bias$", lambda w: np.float32(0.05) * w),
    (r"^(pos_embed|cls_token)_\d+$", lambda w: np.float32(0.2) * w),
    (
        r"(^|\.)norm\d*(\.\d+)?\.weight$|(^|\.)(revert_projs|projs)\.\d+\.0\.weight$",
        lambda w: np.float32(1) + np.float32(0.1) * w,
    ),
    (r"(^|\.)weight$", lambda w: w / np.float32(np.sqrt(np.prod(w.shape[1:])))),
)


def weight(name, shape):
    """The array of a parameter, by timm's name, in PyTorch's layout."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    noise = random.standard_normal(shape).astype("float32")
    return next(scale(noise) for pattern, scale in _RULES if re.search(pattern, name))


def images(seed, batch, height, width):
    """Normalised images `(batch, height, width, 3)`, float32."""
    random = np.random.RandomState(seed)
    return random.standard_normal((batch, height, width, 3)).astype("float32")


def state_shapes():
    """`{variant: {timm name: shape}}` of the eleven variants."""
    with gzip.open(DATA / "state_dicts.json.gz", "rt") as file:
        return json.load(file)


def counts():
    """`{variant: {"params": ..., "macs": ...}}`."""
    return json.loads((DATA / "counts.json").read_text())


def values():
    """The stored arrays, by `<variant>/<what>`."""
    return np.load(DATA / "golden_public.npz")


def variant_model(variant, **kwargs):
    """The model of a variant such as "9_dagger_240": logits of normalised images."""
    preset, size = f"crossvit_{variant}".rsplit("_", 1)
    return kc.CrossViT(
        kc.CrossViTConfig.preset(preset),
        weights=None,
        input_shape=(int(size), int(size), 3),
        include_preprocessing=False,
        classifier_activation=None,
        **kwargs,
    )


def assign(model):
    """Gives every variable of `model` its weight by the rule; returns the model."""
    state = {name: weight(name, array.shape) for name, array in model_state(model).items()}
    assign_state(model, state, "the rule")
    return model
