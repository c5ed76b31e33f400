"""A design of one's own finds its weights in files, by the names of its layers."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import keras_crossvit as kc
from tests.base import pixels, small_config, small_model


@pytest.fixture(scope="module")
def config():
    @kc.layers.register_fusion("tests_gated_means")
    class GatedMeans(kc.layers.Fusion):
        """Each branch adds a share of the other one's average token."""

        def build(self, input_shape):
            (_, _, small), (_, _, large) = input_shape
            self.gate = self.add_weight(shape=(2,), initializer="ones", name="gate")
            self.whole = self.add_weight(shape=(), initializer="ones", name="whole")
            self.to_small = keras.layers.Dense(small, name="to_small", dtype=self.dtype_policy)
            self.to_large = keras.layers.Dense(large, name="to_large", dtype=self.dtype_policy)
            self.to_small.build((None, None, large))
            self.to_large.build((None, None, small))

        def call(self, tokens, training=False):
            small, large = (keras.ops.mean(x, axis=1, keepdims=True) for x in tokens)
            return [
                tokens[0] + self.whole * self.gate[0] * self.to_small(large),
                tokens[1] + self.gate[1] * self.to_large(small),
            ]

    @kc.layers.register_patch_embed("tests_normalised")
    class Normalised(kc.layers.PatchEmbed):
        """Patches, whose embeddings are normalised."""

        def build(self, input_shape):
            super().build(input_shape)
            self.after = keras.layers.LayerNormalization(name="after", dtype=self.dtype_policy)
            self.after.build((None, None, self.embed_dim))

        def call(self, images):
            return self.after(super().call(images))

    return small_config(fusion="tests_gated_means", patch_embed="tests_normalised")


@pytest.mark.parametrize("suffix", ["safetensors", "keras"])
def test_its_weights_are_loaded_from_a_file(config, suffix, tmp_path):
    path = tmp_path / f"own.{suffix}"
    model = small_model(config)
    kc.save_checkpoint(model, path) if suffix == "safetensors" else model.save(path)
    again = kc.CrossViT(config, weights=path, classes=5)
    np.testing.assert_array_equal(again.predict(pixels()), model.predict(pixels()))
    others = kc.CrossViT(
        config, weights=path, classes=7, input_shape=(56, 56, 3), reset_heads=True
    )
    for name in ("gate", "to_large"):
        before, after = (getattr(x.stages[0].fuse, name) for x in (model, others))
        before, after = (getattr(x, "kernel", x) for x in (before, after))
        np.testing.assert_array_equal(before, after)
    assert others.output_shape == (None, 7)


def test_its_names_are_those_of_its_layers(config, tmp_path):
    model = small_model(config)
    model.save_pretrained(tmp_path / "folder")
    found = load_file(tmp_path / "folder" / "model.safetensors")
    wanted = {
        **{f"blocks.0.fusion.to_small.{leaf}": () for leaf in ("weight", "bias")},
        **{"blocks.1.fusion.gate": (2,), "patch_embed.0.after.weight": (16,)},
        "patch_embed.1.proj.weight": (24, 3, 16, 16),
    }
    assert found.keys() >= wanted.keys()
    kernel = model.stages[0].fuse.to_small.kernel
    np.testing.assert_array_equal(found["blocks.0.fusion.to_small.weight"], np.array(kernel).T)
    again = kc.from_pretrained(tmp_path / "folder")
    np.testing.assert_array_equal(again.predict(pixels()), model.predict(pixels()))


def test_weights_of_another_design_are_refused(config, tmp_path):
    kc.save_checkpoint(small_model(), tmp_path / "usual.safetensors")
    missing = re.escape("where 16 variables have no key: patch_embed.0.after.weight")
    with pytest.raises(ValueError, match=missing):
        kc.CrossViT(config, weights=tmp_path / "usual.safetensors", classes=5)
    renamed = dataclasses.replace(config, fusion="none")
    model = small_model(config)
    kc.save_checkpoint(model, tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"12 keys have no variable: blocks\.0\.fusion\.gate"):
        kc.CrossViT(renamed, weights=tmp_path / "own.safetensors", classes=5)


def test_layers_without_a_name_are_counted_in_their_part(tmp_path):
    @kc.layers.register_fusion("tests_of_nameless_layers")
    class Nameless(kc.layers.Fusion):
        """Layers that Keras numbers, for the whole process, and two names that timm has as one."""

        def build(self, input_shape):
            (_, _, width), _ = input_shape
            self.dense = [keras.layers.Dense(width) for _ in range(12)]
            self.norms = [keras.layers.LayerNormalization(name=x) for x in ("norm", "norm1")]
            for layer in (*self.dense, *self.norms):
                layer.build((None, None, width))

        def call(self, tokens, training=False):
            small, large = tokens
            for layer in (*self.dense, *self.norms):
                small = small + layer(small)
            return [small, large]

    config = small_config(fusion="tests_of_nameless_layers")
    model = small_model(config)
    model.save_pretrained(tmp_path)
    names = [x for x in load_file(tmp_path / "model.safetensors") if "blocks.1.fusion" in x]
    layers = ["dense", *(f"dense_{number}" for number in range(1, 12)), "norm", "norm1"]
    wanted = [f"blocks.1.fusion.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    assert sorted(names) == sorted(wanted)
    again = kc.from_pretrained(tmp_path)
    assert again.stages[0].fuse.dense[3].name != model.stages[0].fuse.dense[3].name
    np.testing.assert_array_equal(again.predict(pixels()), model.predict(pixels()))


@pytest.mark.parametrize("added", ["int8", "float8", "lora"])
def test_what_is_added_inside_a_part_has_no_name(config, added, tmp_path):
    model = small_model(config)
    dense = model.stages[0].fuse.to_small
    dense.enable_lora(2) if added == "lora" else dense.quantize(added)
    with pytest.raises(ValueError, match=r"stage_0/fusion/to_small/(lora_kernel_a|kernel_scale)"):
        model.save_pretrained(tmp_path / "folder")


def test_what_quantising_adds_has_no_name(config, tmp_path):
    model = small_model(config)
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"^`model` must be a CrossViT, not quantised"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
