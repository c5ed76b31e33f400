"""What the package uses of Keras, KerasCV and TensorFlow that these do not promise to keep.

CONTRIBUTING.md lists each such name with its reason; nothing is added unnoticed.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import re

import keras
import pytest

import keras_crossvit as kc

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "keras_crossvit").rglob("*.py"))
PRIVATE_MODULES = ("keras.src", "keras_cv.src", "tensorflow.python")


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


def private_imports(tree):
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    return {module for module in modules if module.startswith(PRIVATE_MODULES)}


def own_names(tree):
    """Private names that a file defines: functions, variables, attributes that it assigns."""
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            on_self = isinstance(node, ast.Name) or getattr(node.value, "id", "") == "self"
            if on_self:
                defined.add(node.id if isinstance(node, ast.Name) else node.attr)
    return defined


def foreign_attributes(tree):
    """Private attributes that a file reads or calls and does not define itself."""
    attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_private(n.attr)]
    asked_for = {name for name in names_asked_for(tree) if is_private(name)}
    inherited = {n.attr for n in attributes if ast.unparse(n.value) == "super()"}
    on_self = {n.attr for n in attributes if ast.unparse(n.value) == "self"}
    on_others = {n.attr for n in attributes if ast.unparse(n.value) != "self"}
    return asked_for | inherited | on_self - package_names() | on_others - own_names(tree)


def names_asked_for(tree):
    """The names in `getattr(x, "name", ...)` and `hasattr(x, "name")`."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.args) > 1]
    calls = [n for n in calls if getattr(n.func, "id", "") in ("getattr", "hasattr")]
    return {n.args[1].value for n in calls if isinstance(n.args[1], ast.Constant)}


@functools.cache
def package_names():
    """Private names that any file of the package defines: a subclass may use its base's."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    return set().union(*map(own_names, trees))


def overrides(path):
    """Private methods of a foreign base that a class of this file overrides."""
    module, found = module_of(path), set()
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ != module.__name__:
            continue
        # (tensorflow-datasets documents the private methods that a builder defines.)
        foreign = [
            base
            for base in cls.__mro__
            if base.__module__.partition(".")[0] in ("keras", "keras_cv", "tensorflow")
        ]
        for name in filter(is_private, vars(cls)):
            if any(name in vars(base) for base in foreign):
                found.add(name)
    return found


def listed():
    """`{file: names}` of the table in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Private names")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+\.py)` \| ([^|]+) \|", section, flags=re.MULTILINE)
    return {path: set(re.findall(r"`([^`]+)`", names)) for path, names in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_are_those_of_the_list(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = private_imports(tree) | foreign_attributes(tree) | overrides(path)
    name = str(path.relative_to(ROOT / "keras_crossvit"))
    assert found == listed().get(name, set())


def test_the_list_names_files_that_there_are():
    assert set(listed()) <= {str(path.relative_to(ROOT / "keras_crossvit")) for path in FILES}


# What Keras documents for subclasses to define.
MEANT = {
    "build",
    "built",
    "call",
    "compute_output_shape",
    "dtype_policy",
    "evaluate",
    "from_config",
    "get_config",
    "input_spec",
    "predict",
    "quantize",
}


PUBLIC = [kc.CrossViT, *(getattr(kc.layers, name) for name in kc.layers.__all__)]
CLASSES = [x for x in PUBLIC if inspect.isclass(x) and issubclass(x, keras.layers.Layer)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_attribute_takes_a_name_of_keras(cls):
    """A name of Keras' own, `_is_quantized` in 3.16, would break what Keras does with it."""
    taken = set(dir(keras.layers.Layer()))
    if cls is kc.CrossViT:
        x = keras.Input((1,))
        taken |= set(dir(keras.Model(x, keras.layers.Identity()(x))))
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
    ours = own_names(tree) | set(vars(cls))
    attributes = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and isinstance(n.ctx, ast.Store)
        and getattr(n.value, "id", "") == "self"
    }
    methods = {name for name in vars(cls) if not name.startswith("__")}
    clash = (attributes | methods) & ours & taken - MEANT
    assert clash == set()
