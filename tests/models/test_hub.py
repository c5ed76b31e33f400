"""Repositories of the hub that cannot be: what is said of their names, and of the network."""

import pytest

import keras_crossvit as kc
from tests import base


@pytest.mark.parametrize("name", ["me", "me/", "me/a b", "me/a--b", "hf://me/mine", "a/b/c"])
def test_names_that_no_repository_can_have(name):
    with pytest.raises(ValueError, match=r'^`name` must have the form "owner/name"\. Received: '):
        base.small_model().push_to_hub(name)
    with pytest.raises(ValueError, match=r'^`source` must have the form "hf://owner/name"\. Rec'):
        kc.from_pretrained(f"hf://{name}")


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    def fail(*arguments, **options):
        raise OSError("Name or service not known")

    for name in ("hf_hub_download", "HfApi.create_repo"):
        monkeypatch.setattr(f"huggingface_hub.{name}", fail)
    with pytest.raises(ConnectionError, match=r"^`source='hf://a/b'` could .*network: a folder\."):
        kc.from_pretrained("hf://a/b")
    message = r"^`name='a/b'` could not be uploaded to .* OSError: Name or service not known$"
    with pytest.raises(ConnectionError, match=message):
        base.small_model().push_to_hub("a/b")
    with pytest.raises(ValueError, match=r"Did you mean 'hf://timm/crossvit_9_240\.in1k'\?$"):
        kc.from_pretrained("timm/crossvit_9_240.in1k")
