"""The paper's other experiments on the other backends: the same numbers, and they train."""

import keras
import numpy as np
import pytest

from tests import base
from tests.paper.test_models import CONFIGS, images

pytestmark = pytest.mark.slow

LOGITS = """
import sys, numpy as np
from tests import base
from tests.paper.test_models import CONFIGS, images
for name, config in CONFIGS.items():
    model = base.small_model(config, classifier_activation=None)
    # Compiled as a whole: otherwise JAX would compile each operation by itself.
    np.save(f"{sys.argv[1]}/{name}.npy", model.predict_on_batch(images(config)))
"""

# PyTorch only: there "+=" changes a tensor that the gradient needs.
FIT = """
import numpy as np
from tests import base
from tests.paper.test_models import CONFIGS, images
for name, config in CONFIGS.items():
    model = base.small_model(config)
    model.compile("adam", "sparse_categorical_crossentropy")
    losses = model.fit(images(config, 4), np.arange(4), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0], (name, losses)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_logits_are_the_same_on(backend, tmp_path):
    base.skip_without(backend)
    settings = {"KERAS_BACKEND": backend}
    base.run_python(LOGITS, tmp_path, **settings)
    for name, config in CONFIGS.items():
        model = base.small_model(config, classifier_activation=None)
        expected = keras.ops.convert_to_numpy(model(images(config)))
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-4)


def test_every_model_trains_on_torch():
    base.skip_without("torch")
    base.run_python(FIT, KERAS_BACKEND="torch")
