"""Setup before any test imports Keras, and fixtures that several folders use."""

import gc
import logging
import os
import pathlib

import crossvit_command

gc.disable()  # until all tests are collected
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # values are those of a CPU
# XLA's expensive passes take time that models as small as these never earn back. (Without any
# optimisation a step of training takes up to twice as long, and is compiled hardly sooner.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true",
)

# The tests run side by side, and their models are too small for more than one thread.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# What JAX compiled for one test, or one of its processes, another need not compile again.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# The commands that tests start compute with oneDNN, so this process does too: otherwise their
# values differ in the last bits on processors where TensorFlow leaves it off.
crossvit_command.set_environment()

import keras
import pytest

from tests import base


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """A worker per core, but at most four: each takes up to 3 GB, and starts other processes."""
    return max(2, min(4, os.cpu_count() or 1))


def pytest_collection_modifyitems(items):
    """Starts with the files that take longest, so that none is left when all else is done.

    A worker takes a whole file at a time, in this order.
    """
    marked = {
        name: {item.path for item in items if item.get_closest_marker(name)}
        for name in ("main_job", "slow")
    }
    items.sort(key=lambda item: [item.path not in paths for paths in marked.values()])


def pytest_collection_finish():
    """Spares the garbage collector TensorFlow's million objects, which stay."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _objects_that_stay():
    """Spares it what earlier files left, too: Keras collects garbage once per quantised layer."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_start():
    """Every test begins with the same seed, policy and logging, whatever ran before."""
    keras.utils.set_random_seed(0)
    logging.disable(logging.NOTSET)
    package = logging.getLogger("keras_crossvit")
    package.setLevel(logging.NOTSET)
    package.disabled, package.propagate = False, True
    logging.getLogger("absl").setLevel(logging.ERROR)  # as training leaves it
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
