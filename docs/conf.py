"""Sphinx's configuration: the Markdown pages, and an API reference from the docstrings.

The source folder is the repository's root, so that the links between the README, `docs/` and
`recipes/` resolve here as they do in a checkout.
"""

import inspect
import pathlib
import re
import sys

from sphinx.util.inspect import stringify_signature

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # this checkout, not an installed one

project = "keras_crossvit"
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/**.md",
    "docs/api/*.rst",
    "recipes/serving/README.md",
]
exclude_patterns = [".*", "build", "dist", "runs"]  # large folders, not worth a walk
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes; quotation marks stay those of Python

autodoc_default_options = {"members": True, "imported-members": True}
autodoc_inherit_docstrings = False  # what a layer inherits is in Keras' reference
napoleon_custom_sections = [("Call arguments", "params_style")]

html_theme = "furo"
html_title = project
html_copy_source = False


def convert_code_spans(app, what, name, obj, options, lines):
    """Makes reStructuredText of the Markdown code spans of a docstring: `1 + 1`, `CrossViT`s.

    A name becomes a link if the reference has an entry for it.
    """

    def convert(match):
        code = match[1]
        span = f":py:obj:`{code}`" if re.fullmatch(r"\w+(\.\w+)*", code) else f"``{code}``"
        return span + ("\\ " if match[2] else "")  # markup must not touch the next word

    text = re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", convert, "\n".join(lines))
    lines[:] = text.split("\n")


def constructor_signature(app, what, name, obj, options, signature, return_annotation):
    """The signature of a class is that of `__init__`: Keras' layers have a `__new__(*args)`."""
    if what != "class":
        return None
    _self, *others = inspect.signature(obj.__init__).parameters.values()
    return stringify_signature(inspect.Signature(others)), None


def setup(app):
    """Registers the two functions above; Napoleon, which runs at 500, comes after the first."""
    app.connect("autodoc-process-docstring", convert_code_spans, priority=400)
    app.connect("autodoc-process-signature", constructor_signature)
