"""Makes a folder of `save_pretrained` a Space of the Hugging Face hub, the model's page."""

import json
import pathlib

from keras_crossvit.common.files import write_text

_APP = '''"""Starts the page of the model beside this file, as `crossvit demo` does."""

import pathlib
import sys

from crossvit_command import run

sys.argv[1:] = [str(pathlib.Path(__file__).resolve().parent), "--host", "0.0.0.0"]
run("demo")
'''
_REQUIREMENTS = "keras-crossvit[demo]\n"


def write_space(folder: pathlib.Path) -> None:
    """Writes `app.py` and `requirements.txt`."""
    write_text(folder / "app.py", _APP)
    write_text(folder / "requirements.txt", _REQUIREMENTS)


def space_front_matter(name: str) -> str:
    """The beginning of a Space's card, by which the hub starts its `app_file`."""
    return (
        f"title: {json.dumps(name)}\nsdk: gradio\napp_file: app.py\n"
        'python_version: "3.11"\ntags: [keras_crossvit, crossvit]\n'
    )
