"""What the tests of the data share."""

import pytest

from keras_crossvit.data import pipeline


@pytest.fixture(autouse=True)
def _nothing_named_yet(monkeypatch):
    """A process names each unreadable image once, and the tests' images share their names."""
    monkeypatch.setattr(pipeline, "_named", set())
