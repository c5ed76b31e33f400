"""One exported model and both servers over it."""

import pytest

import keras_crossvit as kc
from tests import base
from tests.export.helpers import LABELS


@pytest.fixture(scope="session")
def classifier():
    return base.small_model()


@pytest.fixture(scope="session")
def export(classifier, tmp_path_factory):
    return kc.export_saved_model(classifier, tmp_path_factory.mktemp("served"), LABELS, top_k=3)


@pytest.fixture(scope="session")
def servable(export):
    from keras_crossvit.serving.servable import Servable

    return Servable(export)


@pytest.fixture(scope="session")
def addresses(servable):
    """The address of each protocol."""
    from keras_crossvit.serving.loopback import serve_grpc
    from tests.serving.rest import serve_rest

    with serve_rest(servable) as rest, serve_grpc(servable) as grpc:
        yield {"rest": rest, "grpc": grpc}
