"""What the files about the package say about it agrees with the package."""

import subprocess
import sys

import pytest
import yaml

import keras_crossvit as kc
from tests import base


def test_citation():
    citation = yaml.safe_load((base.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == kc.__version__
    assert citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Chen", "Fan", "Panda"]
    assert paper["year"] == 2021
    assert paper["identifiers"][0]["value"] == "arXiv:2103.14899"


def test_changelog_has_the_version():
    lines = (base.ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line.split("]")[0].removeprefix("## [") for line in lines if line[:4] == "## ["]
    assert versions[0] == "Unreleased"
    assert versions[1] == kc.__version__


def test_pre_commit_runs_what_make_test_runs():
    path = base.ROOT / ".pre-commit-config.yaml"
    validate = [sys.executable, "-m", "pre_commit", "validate-config", str(path)]
    subprocess.run(validate, check=True)
    (repository,) = yaml.safe_load(path.read_text(encoding="utf-8"))["repos"]
    hooks = {hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]}
    makefile = (base.ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ntest: $(READY)\n")[1].split("\n\n")[0]
    commands = [line.strip().removesuffix(" .") for line in recipe.splitlines()]
    assert commands.pop() == "$(PYTEST)"
    assert hooks == {command.replace("$(BIN)", ".venv/bin") for command in commands}


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("docs", "-m sphinx --fail-on-warning"),
        ("fast", '--no-loadscope-reorder --capture sys -m "not slow and not main_job"'),
        ("test", "-m mypy"),
    ],
)
def test_make_targets(target, command):
    make = ["make", "--dry-run", target]
    done = subprocess.run(make, cwd=base.ROOT, capture_output=True, text=True, check=True)
    assert command in done.stdout


def test_a_public_function_without_types_is_refused(tmp_path):
    """Ruff asks for the type of its result, and mypy then for those of its arguments."""
    code = (
        '"""A module."""\n\n\ndef public(x):\n    return x\n\n\ndef _private(x):\n    return x\n'
    )
    ruff = "-m ruff check --output-format concise --stdin-filename keras_crossvit/new.py -"
    done = check(ruff.split(), input=code)
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if "new.py" in line] == ["ANN201"]
    assert "`public`" in done.stdout

    file = tmp_path / "new.py"
    file.write_text(code.replace("public(x)", "public(x) -> int"), encoding="utf-8")
    done = check(["-m", "mypy", file])
    assert done.returncode == 1
    assert done.stdout.count("error: ") == 1
    assert "new.py:4: error: Function is missing a type annotation for one or more" in done.stdout


def check(arguments, **options):
    """Runs a tool of this environment, with the settings of the project."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=base.ROOT, capture_output=True, text=True, **options)
