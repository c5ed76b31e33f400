"""`make docs`: no warning, and an entry for each public name with all that its docstring says."""

import html
import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest

from tests import base

MODULES = ["", ".layers", ".data", ".training", ".export", ".visualize"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("documentation")
    sphinx = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet"]
    sphinx += ["--conf-dir", "docs", ".", str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(sphinx, cwd=base.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def text_of(page):
    """What a reader sees of a page, in one line."""
    text = re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))
    return " ".join(html.unescape(text).split())


def described_arguments(obj):
    """`(name, first line of its description)` of each argument in the docstring."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(obj) or "", re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.+)$", section[1], re.MULTILINE) if section else []
    return [(name, " ".join(line.replace("`", "").split())) for name, line in found]


@pytest.mark.main_job
@pytest.mark.parametrize("module", MODULES)
def test_public_names(site, module):
    name = f"keras_crossvit{module}"
    page = site / "docs" / "api" / f"{name}.html"
    source, text = page.read_text(encoding="utf-8"), text_of(page)
    room = importlib.import_module(name)
    described = [n for n in room.__all__ if callable(getattr(room, n))]
    assert described
    missing = [n for n in described if f'id="{name}.{n}"' not in source]
    assert not missing
    arguments = [pair for n in described for pair in described_arguments(getattr(room, n))]
    assert arguments
    for argument, line in arguments:
        assert f"{argument} – {line}" in text


@pytest.mark.main_job
def test_an_entry(site):
    """One entry word for word: signature, code spans, arguments, call arguments, errors."""
    text = text_of(site / "docs" / "api" / "keras_crossvit.layers.html")
    signature = "CrossAttention(num_heads: int, qkv_bias: bool = True, **kwargs: Any)"
    assert f"class keras_crossvit.layers.{signature}" in text
    entry = text.split("class keras_crossvit.layers.CrossAttention(")[1]
    entry = entry.split("class keras_crossvit")[0]
    assert "num_heads – Number of heads h, a divisor of the width C." in entry
    assert "Call arguments: tokens – (B, N, C), the query token first." in entry
    assert "Returns: (B, 1, C)." in entry
    assert "Raises: ValueError – If num_heads is not a positive divisor of C." in entry


PAGES = [base.ROOT / "README.md", base.ROOT / "CONTRIBUTING.md", *base.ROOT.glob("docs/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|ipynb))`", page.read_text(encoding="utf-8"))
    roots = base.ROOT, base.ROOT / "keras_crossvit"
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


@pytest.mark.main_job
def test_pages_link_to_each_other(site):
    start = (site / "docs" / "index.html").read_text(encoding="utf-8")
    for page in ["../README", "../CONTRIBUTING", "../CHANGELOG", "training", "extend", "serving"]:
        assert f'href="{page}.html"' in start
    tuning = (site / "docs" / "fine-tune.html").read_text(encoding="utf-8")
    assert 'href="../README.html#fine-tune-on-a-folder-of-pictures"' in tuning
    assert (site / "recipes" / "serving" / "README.html").is_file()
