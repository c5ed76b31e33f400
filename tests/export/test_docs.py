"""The export commands given in the documents are ones that the command accepts."""

import re
import shlex

import pytest

from keras_crossvit.commands.export import parse_export
from tests import base

PAGES = ["docs/serving.md", "recipes/serving/README.md", "keras_crossvit/commands/export.py"]
COMMAND = r"^ *(?:python recipes/export\.py|crossvit export)((?:.*\\\n)*.*)$"


@pytest.mark.parametrize("page", PAGES)
def test_commands(page):
    text = (base.ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(COMMAND, text, re.MULTILINE)
    assert commands
    for command in commands:
        arguments = parse_export(shlex.split(command.replace("\\\n", " ")))
        assert (arguments.source is None) != (arguments.model is None)
