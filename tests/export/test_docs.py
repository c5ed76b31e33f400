"""The export commands that the documents give are ones that the recipe takes."""

import re
import shlex

import pytest

from keras_crossvit.export.cli import parse_export
from tests import base

PAGES = ["docs/serving.md", "recipes/serving/README.md", "recipes/export.py"]


@pytest.mark.parametrize("page", PAGES)
def test_commands(page):
    text = (base.ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^ *python recipes/export\.py((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        arguments = parse_export("", shlex.split(command.replace("\\\n", " ")))
        assert arguments.model.startswith("crossvit_")
