"""One exported model and both servers over it."""

import pytest

import keras_crossvit as kc
from benchmarks.local_server import Servable, serve_grpc
from tests import base
from tests.export.helpers import LABELS
from tests.serving.rest import serve_rest


@pytest.fixture(scope="session")
def classifier():
    return base.small_model(base.small_config(num_stages=1), name="crossvit")


@pytest.fixture(scope="session")
def export(classifier, tmp_path_factory):
    return kc.export_saved_model(classifier, tmp_path_factory.mktemp("served"), LABELS, top_k=3)


@pytest.fixture(scope="session")
def servable(export):
    return Servable(export)


@pytest.fixture(scope="session")
def addresses(servable):
    """The address of each protocol."""
    with serve_rest(servable) as rest, serve_grpc(servable) as grpc:
        yield {"rest": rest, "grpc": grpc}
