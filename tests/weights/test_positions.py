"""Position embeddings belong to a grid of patches, which their number alone does not tell."""

import json
import logging

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from tests import base, reference

# Grids of the small branch, all of 100 patches, and of the large one, all of 16.
SQUARE, WIDE, TALL = (80, 80, 3), (40, 160, 3), (160, 40, 3)
GRIDS = {
    SQUARE: {"small": (10, 10), "large": (4, 4)},
    WIDE: {"small": (5, 20), "large": (2, 8)},
    TALL: {"small": (20, 5), "large": (8, 2)},
}
CONFIG = base.small_config(num_stages=1)


@pytest.fixture(scope="module")
def models():
    return {shape: base.small_model(CONFIG, input_shape=shape) for shape in GRIDS}


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """`{(shape, kind): file or folder}` of each model, in each form that knows its grid."""
    folder, found = tmp_path_factory.mktemp("positions"), {}
    for shape, model in models.items():
        stem = folder / "x".join(map(str, shape))
        kc.save_checkpoint(model, f"{stem}.safetensors")
        model.save(f"{stem}.keras")
        model.save_pretrained(stem)
        old = folder / f"{stem.name}-old"  # without a header, as earlier versions wrote it
        model.save_pretrained(old)
        weights = old / "model.safetensors"
        save_file(load_file(weights), weights, metadata={"format": "pt"})
        found |= {(shape, "safetensors"): stem.with_suffix(".safetensors")}
        found |= {(shape, "keras"): stem.with_suffix(".keras")}
        found |= {(shape, "folder"): stem, (shape, "old folder"): old}
    return found


def loaded(path, shape):
    if path.is_dir():
        return kc.from_pretrained(path, input_shape=shape)
    return kc.CrossViT(CONFIG, weights=path, classes=5, input_shape=shape)


def positions(model, branch):
    return np.array(model.branches[branch].position_embedding.embedding)[0]


def resized(model, branch, source, target):
    """The embeddings of `model` from the grid of `source` to that of `target`, by hand."""
    found, width = positions(model, branch), model.config.branches[branch].embed_dim
    grid = found[1:].reshape(*GRIDS[source][branch], width)
    wanted = reference.cubic_resize(grid, *GRIDS[target][branch])
    return np.concatenate([found[:1], wanted.reshape(-1, width)])


@pytest.mark.parametrize("kind", ["safetensors", "keras", "folder", "old folder"])
@pytest.mark.parametrize("source", GRIDS, ids=str)
@pytest.mark.parametrize("target", GRIDS, ids=str)
def test_the_grid_counts_not_the_number(source, target, kind, models, files, caplog):
    with caplog.at_level(logging.WARNING, "keras_crossvit"):
        made = loaded(files[source, kind], target)
    for branch in ("small", "large"):
        expected = resized(models[source], branch, source, target)
        np.testing.assert_allclose(positions(made, branch), expected, atol=2e-6)
    assert caplog.text == ""


def test_a_file_of_the_same_grid_is_copied_bit_for_bit(models, files):
    made = loaded(files[WIDE, "safetensors"], WIDE)
    for branch in ("small", "large"):
        np.testing.assert_array_equal(positions(made, branch), positions(models[WIDE], branch))


def test_a_file_that_does_not_say_it_is_of_a_square(models, files, caplog):
    """The log says so even if the number of patches fits the model: the square is a guess."""
    bare = files[SQUARE, "old folder"] / "model.safetensors"
    with caplog.at_level(logging.WARNING, "keras_crossvit"):
        made = loaded(bare, WIDE)
    expected = resized(models[SQUARE], "small", SQUARE, WIDE)
    np.testing.assert_allclose(positions(made, "small"), expected, atol=2e-6)
    assert [record.getMessage() for record in caplog.records] == [
        f"{bare}, where {name} has {count} patches: taken for a square of {side} x {side}, and "
        f"resized to the model's {grid}, since the file does not say of which grid they are"
        for name, count, side, grid in (
            ("pos_embed_0", 100, 10, "5 x 20"),
            ("pos_embed_1", 16, 4, "2 x 8"),
        )
    ]


def test_a_file_that_does_not_say_it_and_is_of_no_square(tmp_path):
    model = base.small_model(CONFIG, input_shape=(40, 80, 3))  # 5 x 10 and 2 x 4 patches
    kc.save_checkpoint(model, tmp_path / "new.safetensors")
    state = load_file(tmp_path / "new.safetensors")
    save_file(state, tmp_path / "old.safetensors")
    made = loaded(tmp_path / "old.safetensors", (40, 80, 3))
    np.testing.assert_array_equal(positions(made, "small"), positions(model, "small"))
    with pytest.raises(
        ValueError, match=r"square grid .*old\.safetensors, where pos_embed_\d has"
    ):
        loaded(tmp_path / "old.safetensors", SQUARE)


def test_what_the_file_says(files):
    with safe_open(files[TALL, "safetensors"], framework="numpy") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert json.loads(header["patch_grids"]) == {"small": [20, 5], "large": [8, 2]}


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ('{"small": [9, 9]}', r"of the grid .* says, 9 x 9\. .*pos_embed_0 has 100 patches"),
        ('{"small": 9}', r"complete safetensors file\. .*its patch_grids are '{\"small\": 9}'"),
        ('{"small": null}', r"complete safetensors file\. .*its patch_grids are"),
        ("[1]", r"complete safetensors file\. .*its patch_grids are '\[1\]'"),
        ("{", r"complete safetensors file\. .*its patch_grids are '{'"),
        ('{"small": [-10, -10]}', r"complete safetensors file\. .*its patch_grids are"),
        ('{"small": [Infinity, 1]}', r"complete safetensors file\. .*its patch_grids are"),
        ("[" * 100_000, r"complete safetensors file\. .*its patch_grids are '\[{200}\.\.\.'$"),
    ],
)
def test_a_file_that_says_it_wrong(grids, message, models, files, tmp_path):
    path = tmp_path / "wrong.safetensors"
    save_file(load_file(files[SQUARE, "safetensors"]), path, metadata={"patch_grids": grids})
    before = base.values_of(models[SQUARE])
    with pytest.raises(ValueError, match=message) as error:
        kc.load_checkpoint(models[SQUARE], path)
    assert "\n" not in str(error.value)
    for variable, value in zip(models[SQUARE].weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
