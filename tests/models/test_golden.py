"""Every published variant against the reference: numbers, names, parameters, cost."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.weights.names import named_variables, to_torch
from tests import base, golden

SHAPES = golden.state_shapes()
COUNTS = golden.counts()
VALUES = golden.values()
WITH_LOGITS = [name.removesuffix("/logits") for name in VALUES if name.endswith("/logits")]


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_and_multiply_accumulates(variant):
    with base.without_values():
        model = golden.variant_model(variant)
    assert model.count_params() == COUNTS[variant]["params"]
    assert kc.count_macs(model) == COUNTS[variant]["macs"]
    if variant in SHAPES:  # timm has no model at 504
        weights = {name: np.empty(v.shape) for name, v in named_variables(model).items()}
        shapes = {name: list(to_torch(array).shape) for name, array in weights.items()}
        assert shapes == SHAPES[variant]


def test_reference_covers_all_presets_and_sizes():
    nine = {f"crossvit_{name}" for name in ("tiny", "small", "base", "9", "15", "18")}
    nine |= {f"crossvit_{name}_dagger" for name in ("9", "15", "18")}
    assert {f"crossvit_{name.rsplit('_', 1)[0]}" for name in COUNTS} == nine
    assert nine <= set(kc.presets())
    assert len(SHAPES) == 11
    assert len(WITH_LOGITS) == 6


@pytest.mark.parametrize("variant", WITH_LOGITS)
def test_logits(variant):
    model = golden.assign(golden.variant_model(variant))
    expected = VALUES[f"{variant}/logits"]
    size = model.input_shape[1]
    logits = model(golden.images(0, len(expected), size, size))
    np.testing.assert_allclose(logits, expected, atol=golden.ATOL, rtol=0)
    if f"{variant}/logits_f64" in VALUES:
        exact = VALUES[f"{variant}/logits_f64"]
        np.testing.assert_allclose(logits, exact, atol=golden.ATOL_F64, rtol=0)


@pytest.fixture(scope="module")
def intermediates():
    """What the layers of 9 dagger give for the reference's two images, by layer name."""
    model = golden.assign(golden.variant_model("9_dagger_240"))
    names = ("large_resize", "small_patch_embed", "large_patch_embed", "stage_0")
    outputs = {name: model.get_layer(name).output for name in names}
    outputs |= {f"{b}_norm": model.get_layer(f"{b}_norm").output for b in ("small", "large")}
    stage = model.get_layer("stage_0")
    result = keras.Model(model.inputs, [outputs, stage.input])(golden.images(0, 2, 240, 240))
    values, before = result
    return {**values, "encoders": stage.encode(before)}


# (reference, layer, branch of a pair of outputs, tokens, tolerance); the reference's float32
# resize is the less exact side, so what follows from it has more leeway.
INTERMEDIATES = [
    ("patch_embed.0", "small_patch_embed", None, 5, 2e-5),
    ("patch_embed.1", "large_patch_embed", None, 5, 2e-5),
    ("blocks.0.encoder.0", "encoders", 0, 5, 2e-5),
    ("blocks.0.encoder.1", "encoders", 1, 5, 4e-5),
    ("blocks.0.0", "stage_0", 0, 5, 2e-5),
    ("blocks.0.1", "stage_0", 1, 5, 4e-5),
]


@pytest.mark.parametrize(("name", "layer", "branch", "tokens", "atol"), INTERMEDIATES)
def test_intermediates(intermediates, name, layer, branch, tokens, atol):
    values = intermediates[layer] if branch is None else intermediates[layer][branch]
    expected = VALUES[f"9_dagger_240/{name}"]
    np.testing.assert_allclose(values[:, :tokens], expected, atol=atol, rtol=0)


@pytest.mark.parametrize(("index", "branch"), [(0, "small"), (1, "large")])
def test_final_class_tokens(intermediates, index, branch):
    expected = VALUES[f"9_dagger_240/norm.{index}.cls"]
    np.testing.assert_allclose(intermediates[f"{branch}_norm"], expected, atol=2e-5, rtol=0)


def test_resized_image(intermediates):
    resized = np.array(intermediates["large_resize"])
    assert resized.shape == (2, 224, 224, 3)
    corner = VALUES["9_dagger_240/resized_corner"]
    np.testing.assert_allclose(resized[:, :16, :16], corner, atol=2e-4, rtol=0)
    corner = VALUES["9_dagger_240/resized_corner_br"]
    np.testing.assert_allclose(resized[:, -16:, -16:], corner, atol=2e-4, rtol=0)
    flat = resized.reshape(2, -1).astype("float64")
    statistics = np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1)
    expected = VALUES["9_dagger_240/resized_mean_std"]
    np.testing.assert_allclose(statistics, expected, atol=2e-6, rtol=0)
