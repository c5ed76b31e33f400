"""The package on each of Keras' backends, each in a process of its own."""

import numpy as np
import pytest

from tests import base, golden

pytestmark = pytest.mark.slow

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

VARIANTS = ("tiny_240", "9_dagger_240")
LOGITS = """
import numpy as np
from tests import golden
folder, *variants = sys.argv[1:]
for variant in variants:
    model = golden.assign(golden.variant_model(variant))
    logits = model.predict(golden.images(0, 2, 240, 240), verbose=0)
    np.save(f"{folder}/{variant}.npy", logits)
print("logits")
"""

# On PyTorch `+=` would write into a layer's inputs: hence the copies.
FIT = """
from tests import base
config = base.small_config(num_stages=1)
for checkpointing in (False, True) if backend == "torch" else (True,):
    model = base.small_model(config, drop_path_rate=0.1, gradient_checkpointing=checkpointing)
    tokens = [keras.random.normal((2, n, c)) for n, c in ((26, 16), (5, 24))]
    copies = [np.array(keras.ops.convert_to_numpy(x)) for x in tokens]
    model.get_layer("stage_0")(tokens)
    for ours, copy in zip(tokens, copies):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), copy)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    losses = model.fit(base.pixels(8), np.arange(8) % 5, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0], losses
print("fit")
model.save(f"{folder}/model.keras")
loaded = keras.saving.load_model(f"{folder}/model.keras")
x = base.pixels()
np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
print("saving")
"""

# TensorFlow reads the images.
EVALUATE = """
import tensorflow as tf
from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.evaluation import evaluate
from keras_crossvit.probes import knn
x = base.pixels(6).astype("uint8")
best = model.predict(x.astype("float32"), verbose=0).argmax(axis=1)
labels = np.where(np.arange(6) < 4, best, (best + 1) % 5)
split = MemorySplit([tf.io.encode_png(image).numpy() for image in x], labels)
found = evaluate(model, split, list("abcde"), batch_size=4, crop_ratio=1.0, branches=True)
assert found["top1"] == 4 / 6, found
assert knn(model, Source("x", tuple("abcde"), split, split))["top1"] == 1.0
print("evaluation")
"""

# Keras' `model.export(path, format="torch")` and, with onnxscript, "onnx" do the same.
EXPORT = """
import numpy as np
import torch
from tests import base
model = base.small_model()
images = torch.tensor(base.pixels())
exported = torch.export.export(model, (images,)).module()
np.testing.assert_allclose(exported(images).numpy(force=True), model(images).numpy(force=True))
"""


def test_import_on_tensorflow_loads_nothing_of_training():
    printed = base.run_python(IMPORT, KERAS_BACKEND="tensorflow")
    assert printed.strip() == "tensorflow []"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend(backend, tmp_path):
    base.skip_without(backend)
    code = IMPORT + LOGITS + FIT + EVALUATE
    settings = {"KERAS_BACKEND": backend}
    printed = base.run_python(code, tmp_path, *VARIANTS, **settings)
    assert printed.splitlines() == [f"{backend} []", "logits", "fit", "saving", "evaluation"]
    for variant in VARIANTS:
        expected = golden.values()[f"{variant}/logits"]
        logits = np.load(tmp_path / f"{variant}.npy")
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def test_torch_exports_a_model():
    base.skip_without("torch")
    base.run_python(EXPORT, KERAS_BACKEND="torch")
