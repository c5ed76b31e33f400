"""One model and one SavedModel of it, since an export takes seconds."""

import pytest
import tensorflow as tf

import keras_crossvit as kc
from tests import base
from tests.export.helpers import LABELS


@pytest.fixture(scope="session")
def classifier():
    return base.small_model(drop_rate=0.2)


@pytest.fixture(scope="session")
def export(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space")
    return kc.export_saved_model(classifier, folder / "model", LABELS, top_k=3)


@pytest.fixture(scope="session")
def signatures(export):
    return tf.saved_model.load(export).signatures
