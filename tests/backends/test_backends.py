"""The package on each of Keras' backends, each in a process of its own."""

import importlib.util

import numpy as np
import pytest

from tests import base, golden

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

LOGITS = """
import sys
import keras, numpy as np
import keras_crossvit
from tests import golden
assert keras.backend.backend() == sys.argv[1]
assert "tensorflow" not in sys.modules or sys.argv[1] == "tensorflow"
for variant in sys.argv[3:]:
    model = golden.assign(golden.variant_model(variant))
    logits = model.predict(golden.images(0, 2, 240, 240), verbose=0)
    np.save(f"{sys.argv[2]}/{variant}.npy", logits)
"""

FIT = """
import sys
import keras, numpy as np
from tests import base
config = base.small_config(num_stages=1)
for checkpointing in (False, True) if keras.backend.backend() == "torch" else (True,):
    model = base.small_model(config, drop_path_rate=0.1, gradient_checkpointing=checkpointing)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    losses = model.fit(base.pixels(8), np.arange(8) % 5, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0], losses
model.save(sys.argv[1] + "/model.keras")
loaded = keras.saving.load_model(sys.argv[1] + "/model.keras")
x = base.pixels()
tokens = [keras.random.normal((2, n, c)) for n, c in ((26, 16), (5, 24))]
copies = [np.array(keras.ops.convert_to_numpy(x)) for x in tokens]
model.get_layer("stage_0")(tokens)
for ours, before in zip(tokens, copies):  # PyTorch's `+=` would write into what it was given
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), before)
np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
print("fitted")
"""

IMPORT = """
import sys
import keras
backend = keras.backend.backend()
before = set(sys.modules)
import keras_crossvit as kc
foreign = {"keras_cv", "tensorflow_datasets", "tensorflow", "torch", "jax", "matplotlib"}
print(backend, sorted(foreign & (set(sys.modules) - before)))
assert not {"keras_cv", "tensorflow_datasets"} & set(sys.modules)
assert backend == "tensorflow" or "tensorflow" not in sys.modules
"""


def need(backend):
    if importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"{backend} is not installed")


@pytest.mark.parametrize("backend", BACKENDS)
def test_import_loads_nothing_that_the_backend_does_not_need(backend):
    need(backend)
    printed = base.run_python(IMPORT, KERAS_BACKEND=backend)
    assert printed.strip() == f"{backend} []"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_logits_on_another_backend(backend, tmp_path):
    need(backend)
    variants = ("tiny_240", "9_dagger_240")
    base.run_python(LOGITS, backend, tmp_path, *variants, KERAS_BACKEND=backend)
    for variant in variants:
        expected = golden.values()[f"{variant}/logits"]
        np.testing.assert_allclose(
            np.load(tmp_path / f"{variant}.npy"), expected, atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fit_checkpointing_and_saving_on_another_backend(backend, tmp_path):
    need(backend)
    printed = base.run_python(FIT, tmp_path, KERAS_BACKEND=backend)
    assert printed.strip().endswith("fitted")
