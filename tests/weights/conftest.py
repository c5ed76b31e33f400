"""A fixture of the tests of checkpoints."""

import pytest

from keras_crossvit.weights.checkpoint import model_state


@pytest.fixture
def state(model):
    """The weights of the session's model under timm's names."""
    return model_state(model)
