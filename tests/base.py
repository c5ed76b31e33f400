"""What the tests share: a small model, and Python in a process of its own."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from tests.reference import randomize

PRESETS = frozenset(kc.presets())  # the package's own, before any test registers another
ROOT = pathlib.Path(__file__).resolve().parent.parent


def without_values():
    """A context in which models are made without values: much faster, and enough to count."""
    return keras.StatelessScope(initialize_variables=False)


def small_config(**changes):
    """A CrossViT of a few thousand parameters with all parts of the published ones.

    The large branch sees 32 pixels where the small one sees 40, so there is a resize.
    """
    config = kc.CrossViTConfig(
        small=kc.BranchConfig(40, 8, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2),
        large=kc.BranchConfig(32, 16, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2),
        num_stages=2,
    )
    return dataclasses.replace(config, **changes)


def any_design(fusion, patch_embed):
    """A small configuration with patches of 12 and 16 pixels, which all patch embeddings make."""
    return small_config(
        small=kc.BranchConfig(48, 12, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2),
        large=kc.BranchConfig(48, 16, embed_dim=24, depth=1, num_heads=3, mlp_ratio=2),
        num_stages=1,
        fusion=fusion,
        patch_embed=patch_embed,
    )


def small_model(config=None, **kwargs):
    """A model of `small_config()` for 5 classes, weights large enough to matter."""
    arguments = {"weights": None, "classes": 5, **kwargs}
    model = kc.CrossViT(config or small_config(), **arguments)
    return randomize(model, scale=0.2)


class Spare(keras.layers.Layer):
    """Has a kernel that its output does not depend on."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3,), initializer="ones", name="kernel")

    def call(self, inputs):
        return inputs


def model_with_a_spare_weight():
    """A classifier of 5 classes in which the loss does not depend on a kernel, all ones."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), Spare(name="spare")]
    head = keras.layers.Dense(5, kernel_initializer="zeros", dtype="float32")
    return keras.Sequential([keras.Input((40, 40, 3)), *layers, head])


def pixels(batch=2, height=40, width=40, seed=0):
    """Images with values 0..255, float32."""
    return np.random.default_rng(seed).uniform(0, 255, (batch, height, width, 3)).astype("float32")


def values_of(model):
    """Copies of all variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.weights]


needs_kerascv = pytest.mark.skipif(
    importlib.util.find_spec("keras_cv") is None, reason="keras_cv is not installed"
)
KERASCV = pytest.param("kerascv", marks=needs_kerascv)  # a value of `augment`


def skip_without(package):
    """Skips the test if an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


# On JAX, XLA compiles a whole step: without optimisation that takes a fifth less time.
JAX_XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def environment_with(**changes):
    """The environment variables of a process of its own."""
    flags = {"XLA_FLAGS": JAX_XLA_FLAGS} if changes.get("KERAS_BACKEND") == "jax" else {}
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **flags, **changes}


def run_python(code, *arguments, **environment):
    """Runs `code` in a new Python at the root of the project and returns what it printed.

    Fails the test with the error output if it ends with an error.
    """
    result = subprocess.run(
        [sys.executable, "-c", f"import tests.no_garbage\n{code}", *map(str, arguments)],
        cwd=ROOT,
        env=environment_with(**environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout
