"""The page without a browser: how it is started, and what its functions answer."""

import json
import os
import socket
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

import crossvit_command
from keras_crossvit.demo.answers import Answerer
from tests import base

pytestmark = pytest.mark.slow

LABELS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(base.pixels(1)[0].astype("uint8")).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def start():
    """Function from an address of this machine to that of a page there."""
    base.skip_without("gradio")
    from keras_crossvit.demo import page

    pages = []

    def call(host):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pages.append(page.make_page(Answerer(base.small_model())))
        return page.start(pages[-1], host, port)

    yield call
    for started in pages:
        started.close()


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_is_not_asked_for_the_page(proxy, start, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    start("127.0.0.1")
    found = {name: value for name, value in os.environ.items() if name.lower() == "no_proxy"}
    assert found == {"NO_PROXY": "elsewhere"}


def test_no_history_is_kept(start, monkeypatch):
    monkeypatch.setenv("GRADIO_RUN_HISTORY", "True")
    with urllib.request.urlopen(start("127.0.0.1") + "config") as answer:
        assert json.load(answer)["run_history"] is False


def test_addresses_without_brackets(start):
    for host in ("::1", "http://127.0.0.1"):
        with pytest.raises(ValueError, match=rf"`host` must be .* Received: host='{host}'$"):
            start(host)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_address_in_brackets(start):
    with socket.socket(socket.AF_INET6) as here:
        try:
            here.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    address = start("[::1]")
    assert address.startswith("http://[::1]:")


def test_a_model_that_answers_nan_is_noted_in_the_folder(picture):
    """Beside what is known of the files before."""
    base.skip_without("gradio")
    from keras_crossvit.demo.page import make_page

    model = base.small_model(labels=LABELS)
    model.branches["large"].head.bias.assign(np.full(5, np.nan, "float32"))
    page = make_page(Answerer(model), [picture])
    (classify,) = (x.fn for x in page.fns.values() if x.name == "classify_folder")
    ((shown, notes),) = classify()
    assert shown == []
    assert notes.visible
    assert notes.value.startswith("`model` must answer with finite numbers. Received: NaN")


def test_a_model_that_takes_pairs_has_no_folder(picture, monkeypatch):
    base.skip_without("gradio")
    model = base.small_model(base.small_config(num_stages=1), inputs="separate")
    model.save(picture.parent / "pairs.keras")
    arguments = [str(picture.parent / "pairs.keras"), "--folder", str(picture.parent)]
    monkeypatch.setattr(sys, "argv", ["crossvit", "demo", *arguments])
    monkeypatch.setattr("gradio.Blocks.block_thread", lambda page: page.close())
    with pytest.raises(SystemExit) as refused:
        crossvit_command.main()
    message = "`--folder` must be left out for a model that takes an image for each branch. "
    assert str(refused.value) == f"ValueError: {message}Received: --folder {picture.parent}"
