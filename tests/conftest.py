"""Set up before any test imports Keras; fixtures that several folders use."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # values are those of a CPU
# XLA compiles longer than it computes here; without optimisation it is quicker.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import keras
import pytest

from tests import base


@pytest.fixture(autouse=True)
def _same_start():
    """Every test begins with the same seed and the float32 policy, whatever ran before."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def model():
    """A small model of 5 classes; tests must not change it."""
    return base.small_model(classifier_activation=None)


@pytest.fixture
def fresh_model():
    """A small model of 5 classes that a test may change."""
    return base.small_model(classifier_activation=None)
