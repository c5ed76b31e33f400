"""Checkpoints in and out: names, layouts, sizes; all or nothing when they do not fit."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
import safetensors
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from keras_crossvit.weights.checkpoint import model_state
from keras_crossvit.weights.files import read_checkpoint
from tests import base, golden, reference
from tests.weights.states import assert_same_weights, written, zeroed


def test_safetensors_round_trip_is_exact(model, fresh_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    path = "~/weights.safetensors"
    kc.save_checkpoint(model, path)
    assert os.listdir(tmp_path) == ["weights.safetensors"]
    kc.load_checkpoint(zeroed(fresh_model), path)
    assert_same_weights(fresh_model.weights, model.weights)


def test_paths_that_begin_with_a_tilde(model, fresh_model, tmp_path, monkeypatch):
    """In the home folder, or a file of such a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/weights.safetensors", "~weights.safetensors"):
        kc.save_checkpoint(model, path)
        kc.load_checkpoint(zeroed(fresh_model), path)
        assert_same_weights(fresh_model.weights, model.weights)
    assert sorted(os.listdir()) == ["weights.safetensors", "~weights.safetensors"]
    again = kc.CrossViT(model.config, weights="~weights.safetensors", classes=5)
    assert_same_weights(again.weights, model.weights)
    with pytest.raises(ValueError, match=r"`source` must be a path\. Received: source=''"):
        kc.load_checkpoint(model, "")


def test_written_arrays_have_pytorch_layout(tmp_path):
    model = base.small_model(base.small_config())
    kc.save_checkpoint(model, tmp_path / "weights.safetensors")
    arrays = load_file(tmp_path / "weights.safetensors")
    by_path = {variable.path: np.array(variable) for variable in model.weights}
    fc1 = by_path["stage_1/large_block_0/mlp/fc1/kernel"]
    np.testing.assert_array_equal(arrays["blocks.1.blocks.1.0.mlp.fc1.weight"], fc1.T)
    conv = by_path["small_patch_embed/proj/kernel"]
    for out, channel, row, column in ((0, 0, 0, 0), (3, 2, 1, 5), (15, 1, 7, 0)):
        value = arrays["patch_embed.0.proj.weight"][out, channel, row, column]
        assert value == conv[row, column, channel, out]
    assert {str(array.dtype) for array in arrays.values()} == {"float32"}


def test_checkpoint_replaces_an_older_file(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    kc.save_checkpoint(model, path)
    assert_same_weights(
        load_file(path).values(), dict(sorted(model_state(model).items())).values()
    )


def test_float16_weights_are_written_as_float32(tmp_path):
    keras.config.set_dtype_policy("float16")
    model = base.small_model()
    kc.save_checkpoint(model, tmp_path / "weights.safetensors")
    arrays = load_file(tmp_path / "weights.safetensors")
    assert {str(array.dtype) for array in arrays.values()} == {"float32"}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_authors_spelling(model, fresh_model, state, tmp_path, prefix):
    def spelled(name):
        for token in ("pos_embed", "cls_token"):
            name = name.replace(f"{token}_", f"{token}.")
        return prefix + name

    theirs = {spelled(name): array for name, array in state.items()}
    assert {f"{prefix}pos_embed.0", f"{prefix}cls_token.1"} <= set(theirs)
    kc.load_checkpoint(zeroed(fresh_model), written(theirs, tmp_path))
    assert_same_weights(fresh_model.weights, model.weights)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_pytorch_file(model, fresh_model, state, tmp_path, wrapper):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, tmp_path / "weights.pth")
    kc.load_checkpoint(zeroed(fresh_model), tmp_path / "weights.pth")
    assert_same_weights(fresh_model.weights, model.weights)


def test_positions_of_another_size_are_resized_bicubic(tmp_path):
    """240 to 408 and a wide image, with the published grids and small widths."""
    config = base.small_config(
        small=kc.BranchConfig(240, 12, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1),
        large=kc.BranchConfig(224, 16, embed_dim=12, depth=1, num_heads=2, mlp_ratio=1),
        num_stages=1,
    )
    source = base.small_model(config)
    kc.save_checkpoint(source, tmp_path / "weights.safetensors")
    grids = {(408, 408): {"small": (34, 34), "large": (24, 24)}}
    grids[240, 360] = {"small": (20, 30), "large": (14, 21)}
    old = {"small": 20, "large": 14}
    for size, by_branch in grids.items():
        model = kc.CrossViT(
            config, weights=tmp_path / "weights.safetensors", input_shape=(*size, 3), classes=5
        )
        for variable, original in zip(model.weights, source.weights, strict=True):
            if "position_embedding" not in variable.path:
                np.testing.assert_array_equal(variable, original)
                continue
            branch = variable.path.split("_")[0]
            before = np.array(original)[0]
            grid = before[1:].reshape(old[branch], old[branch], -1)
            expected = reference.cubic_resize(grid, *by_branch[branch])
            expected = expected.reshape(-1, before.shape[1])
            np.testing.assert_array_equal(np.array(variable)[0, 0], before[0])
            np.testing.assert_allclose(np.array(variable)[0, 1:], expected, atol=1e-6)


def halved(logits):
    return logits / 2


@pytest.mark.parametrize(
    ("theirs", "ours", "classes", "warned"),
    [
        ("sigmoid", "softmax", 5, ["sigmoid. This one has softmax"]),
        (keras.activations.softmax, "sigmoid", 5, ["softmax. This one has sigmoid"]),
        (keras.activations.softmax, "softmax", 5, []),
        ("softmax", "sigmoid", 1, []),  # one class gets a sigmoid
        (None, "softmax", 5, []),  # logits are a choice
        ("sigmoid", "linear", 5, []),
        (halved, "softmax", 5, []),
    ],
)
def test_activations(theirs, ours, classes, warned, fresh_model, tmp_path, caplog):
    """Keras' functions are written by name; other probabilities than the file's are logged."""
    fresh_model.classes, fresh_model.classifier_activation = classes, theirs
    kc.save_checkpoint(fresh_model, tmp_path / "weights.safetensors")
    arguments = read_checkpoint(tmp_path / "weights.safetensors").arguments
    name = getattr(theirs, "__name__", theirs)
    assert arguments.get("classifier_activation", "halved") == name
    fresh_model.classifier_activation = ours
    kc.load_checkpoint(fresh_model, tmp_path / "weights.safetensors")
    assert len(caplog.messages) == len(warned)
    for message, part in zip(caplog.messages, warned, strict=True):
        assert f"of a model with classifier_activation={part}, and answers otherwise" in message


def test_designs_of_the_same_names_and_shapes(tmp_path, caplog):
    """What differs is logged, and not if the file does not say."""
    large = dataclasses.replace(base.small_config().large, num_heads=4)
    source = base.small_model(base.small_config(fusion="pairwise", large=large))
    kc.save_checkpoint(source, tmp_path / "pairwise.safetensors")
    kc.load_checkpoint(source, tmp_path / "pairwise.safetensors")
    written(model_state(source), tmp_path, "bare.safetensors")
    other = base.small_model(base.small_config(fusion="class_token"))
    kc.load_checkpoint(other, tmp_path / "bare.safetensors")
    assert not caplog.messages
    kc.load_checkpoint(other, tmp_path / "pairwise.safetensors")
    fusion, heads = caplog.messages
    assert "are of a model with fusion=pairwise. This one has class_token, and" in fusion
    assert "are of a model with large.num_heads=4. This one has 3, and" in heads


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": 5},
        {"labels": ["a", 2, "c"]},
        {"labels": ["a\nb"]},
        {"labels": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}},
        {"mean": 0},
        {"mean": ""},
        {"std": ["a", "b", "c"]},
        {"classifier_activation": ["softmax"]},
        {"config": {}},
        {"config": {"small": 5, "large": 5, "fusion": "none"}},
        [1],
    ],
)
def test_arguments_of_other_types_in_a_header_change_nothing(wrong, model, state, tmp_path):
    path = tmp_path / "wrong.safetensors"
    other = {name: array + 1 for name, array in state.items()}
    save_file(other, path, metadata={"model_arguments": json.dumps(wrong)})
    before = base.values_of(model)
    with pytest.raises(ValueError, match=r"safetensors .*its model_arguments are") as error:
        kc.load_checkpoint(model, path)
    assert "\n" not in str(error.value)
    assert_same_weights(model.weights, before)


def test_labels_of_another_number_of_classes_are_left(fresh_model, state, tmp_path):
    labels = {"model_arguments": json.dumps({"labels": ["a"] * 7})}
    save_file(state, tmp_path / "seven.safetensors", metadata=labels)
    kc.load_checkpoint(fresh_model, tmp_path / "seven.safetensors")
    assert fresh_model.labels is None


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


WRONG_STATES = {
    "missing": (lambda s: without(s, "norm.0.bias"), ["1 variables have no key: norm.0.bias"]),
    "extra": (
        lambda s: {**s, "head_dist.weight": np.zeros(3, "float32")},
        ["1 keys have no variable: head_dist.weight"],
    ),
    "renamed": (
        lambda s: {**without(s, "norm.0.bias"), "norm.0.beta": s["norm.0.bias"]},
        ["have no key: norm.0.bias", "have no variable: norm.0.beta"],
    ),
    "shape": (
        lambda s: {**s, "head.1.weight": s["head.1.weight"][:, :-1].copy()},
        ["1 shapes differ: head.1.weight (23, 5) for (24, 5)"],
    ),
    "transposed": (
        lambda s: {
            **s,
            "blocks.0.blocks.0.0.mlp.fc1.weight": s["blocks.0.blocks.0.0.mlp.fc1.weight"].T.copy(),
        },
        ["blocks.0.blocks.0.0.mlp.fc1.weight (32, 16) for (16, 32)"],
    ),
    "width of positions": (
        lambda s: {**s, "pos_embed_0": s["pos_embed_0"][..., :-1].copy()},
        ["1 shapes differ: pos_embed_0"],
    ),
    "positions not square": (
        lambda s: {**s, "pos_embed_0": s["pos_embed_0"][:, :-1].copy()},
        ["square grid", "weights.safetensors, where pos_embed_0 has 24 patches"],
    ),
    "positions of no patches": (
        lambda s: {**s, "pos_embed_0": s["pos_embed_0"][:, :1].copy()},
        ["square grid", "weights.safetensors, where pos_embed_0 has 0 patches"],
    ),
    "positions of no batch": (
        lambda s: {**s, "pos_embed_0": s["pos_embed_0"][0, 1:].copy()},
        ["weights.safetensors, where 1 shapes differ: pos_embed_0"],
    ),
    "two rows of positions": (
        lambda s: {**s, "pos_embed_0": np.zeros((2, 17, 16), "float32")},
        ["weights.safetensors, where 1 shapes differ: pos_embed_0 (2, 17, 16) for (1, 26, 16)"],
    ),
    "scalar head": (
        lambda s: {**s, "head.0.weight": np.array(1, "float32")},
        ["weights.safetensors, where 1 shapes differ: head.0.weight () for (16, 5)"],
    ),
    "NaN": (
        lambda s: {**s, "norm.0.bias": np.full(16, np.nan, "float32")},
        ["finite", "weights.safetensors, where 1 are not: norm.0.bias (NaN, infinite or beyond"],
    ),
    "infinite": (
        lambda s: {**s, "norm.0.bias": np.full(16, -np.inf, "float16")},
        ["finite", "weights.safetensors, where 1 are not: norm.0.bias (NaN, infinite or beyond"],
    ),
    "beyond float32": (
        lambda s: {**s, "norm.0.bias": np.full(16, 1e39)},
        ["finite", "weights.safetensors, where 1 are not: norm.0.bias (NaN, infinite or beyond"],
    ),
    "positions with one NaN, to be resized": (
        lambda s: {**s, "pos_embed_0": np.full((1, 17, 16), np.nan, "float32")},
        ["finite", "weights.safetensors, where 1 are not: pos_embed_0 (NaN"],
    ),
    "integers": (
        lambda s: {
            **s,
            "norm.1.bias": s["norm.1.bias"].astype("int64"),
            "norm.1.weight": s["norm.1.weight"] > 0,
        },
        ["where 2 are not: norm.1.weight (bool), norm.1.bias (int64)"],
    ),
    "complex": (
        lambda s: {**s, "norm.0.bias": s["norm.0.bias"].astype("complex64")},
        ["where 1 are not: norm.0.bias (complex64)"],
    ),
    "two spellings of one name": (
        lambda s: {**s, "pos_embed.0": s["pos_embed_0"]},
        ["must hold each weight once", "pos_embed_0", "another name"],
    ),
    "empty": (lambda s: {"x": np.zeros(1, "float32")}, ["keys have no variable: x", "more)"]),
}


@pytest.mark.parametrize("case", WRONG_STATES)
def test_wrong_checkpoint_names_what_is_wrong_and_changes_nothing(case, model, state, tmp_path):
    change, messages = WRONG_STATES[case]
    before = base.values_of(model)
    try:
        path = written(change(state), tmp_path)
    except SafetensorError as error:
        pytest.skip(f"safetensors {safetensors.__version__} does not write that: {error}")
    with pytest.raises(ValueError, match=r"Received: ") as error:
        kc.load_checkpoint(model, path)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert_same_weights(model.weights, before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_floats_of_other_widths_load(dtype, fresh_model, state, tmp_path):
    theirs = {name: array.astype(dtype) for name, array in state.items()}
    kc.load_checkpoint(zeroed(fresh_model), written(theirs, tmp_path))
    expected = [theirs[name].astype("float32") for name in sorted(theirs)]
    loaded = model_state(fresh_model)
    assert_same_weights([loaded[name] for name in sorted(loaded)], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bit_weights_are_not_rounded(dtype, state, tmp_path):
    """Of positions that are resized, and of kernels for other channels."""
    theirs = {name: array.astype(dtype) for name, array in state.items()}
    wide = {name: array.astype("float32") for name, array in theirs.items()}
    options = {"input_shape": (64, 64, 2), "classes": 5, "mean": (0, 0), "std": (1, 1)}
    files = [written(theirs, tmp_path), written(wide, tmp_path, "wide.safetensors")]
    ours, expected = (kc.CrossViT(base.small_config(), weights=x, **options) for x in files)
    assert_same_weights(ours.weights, expected.weights)


def test_type_that_numpy_does_not_have(model, tmp_path):
    entry = {"norm.0.bias": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    header = json.dumps(entry).encode()
    path = tmp_path / "float8.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"..")
    before = base.values_of(model)
    with pytest.raises(ValueError, match=r"Received: .*float8\.safetensors, ") as error:
        kc.load_checkpoint(model, path)
    assert "\n" not in str(error.value)
    assert_same_weights(model.weights, before)


def test_weights_of_another_architecture(model, tmp_path):
    other = base.small_model(base.small_config(num_stages=1))
    kc.save_checkpoint(other, tmp_path / "other.safetensors")
    before = base.values_of(model)
    with pytest.raises(ValueError, match=r"same architecture.*variables have no key: blocks\.1\."):
        kc.load_checkpoint(model, tmp_path / "other.safetensors")
    assert_same_weights(model.weights, before)


def test_foreign_model_has_no_names(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must be a CrossViT"):
        kc.save_checkpoint(model, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_model_with_lora_has_no_names(fresh_model, tmp_path):
    fresh_model.get_layer("stage_0").small_blocks[0].mlp.fc1.enable_lora(2)
    with pytest.raises(ValueError, match="without LoRA"):
        kc.save_checkpoint(fresh_model, tmp_path / "weights.safetensors")


TIMM = """
import sys
try:
    import timm, torch
except Exception as error:
    print("skip: timm cannot be imported:", error)
    sys.exit()
import numpy as np
from safetensors.torch import load_file
model = timm.create_model("crossvit_9_dagger_240").eval()
model.load_state_dict(load_file(sys.argv[1]), strict=True)
with torch.no_grad():
    logits = model(torch.from_numpy(np.load(sys.argv[2]).transpose(0, 3, 1, 2).copy()))
np.save(sys.argv[3], logits.numpy())
"""


def test_timm_loads_our_file_strictly_and_computes_the_same(tmp_path):
    model = golden.assign(golden.variant_model("9_dagger_240"))
    files = [tmp_path / name for name in ("weights.safetensors", "x.npy", "y.npy")]
    kc.save_checkpoint(model, files[0])
    x = golden.images(1, 2, 240, 240)
    np.save(files[1], x)
    printed = base.run_python(TIMM, *files)
    if printed.startswith("skip"):
        pytest.skip(printed)
    np.testing.assert_allclose(model(x), np.load(files[2]), atol=golden.ATOL, rtol=0)
