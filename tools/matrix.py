"""Runs the tests with the lowest and the newest versions that `setup.py` allows.

    python tools/matrix.py                  # every set, as `make matrix` does
    python tools/matrix.py lowest colab     # these alone

Each set is an environment of its own, recreated by uv, which also finds Python 3.11 to 3.13
on this machine. The results replace the rows of `docs/versions.md`.
"""

import argparse
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "versions.md"
REPORTED = ("tensorflow", "keras", "numpy", "jax", "protobuf")
RUNNERS = ("pillow>=10", "psutil>=5.9", "pytest>=8", "setuptools>=77")
RUNS = (
    ("-m", "not main_job", *(f"tests/{room}" for room in ("layers", "models", "weights"))),
    ("-m", "not main_job", *(f"tests/{room}" for room in ("data_room", "training"))),
    (
        *("-m", "not main_job", "tests/export"),
        *("--ignore=tests/export/test_runtimes.py", "--ignore=tests/export/test_triton.py"),
    ),
    ("tests/test_readme.py", "-k", "snippet"),
)


@dataclasses.dataclass(frozen=True)
class Set:
    """Versions that are tested together.

    Args:
        python: Version of Python.
        options: Options for `uv pip install`.
        pins: Requirements besides those of the package.
        removed: Packages that are removed after the installation.
        added: Packages that are then installed without their requirements.
    """

    python: str
    options: tuple = ()
    pins: tuple = ("jax[cpu]>=0.7.2",)
    removed: tuple = ()
    added: tuple = ()


SETS = {
    "lowest": Set("3.11", options=("--resolution", "lowest-direct")),
    # What Colab shipped on 2026-08-19, which the package has to leave as it is. The newest
    # tensorflow-metadata cannot be imported with its protobuf, and does not tell pip so.
    "colab": Set(
        "3.13",
        pins=(
            *("tensorflow==2.20.0", "keras==3.13.2", "numpy==2.1.3", "protobuf==5.29.6"),
            *("tensorflow-metadata<1.18", "jax[cpu]"),
        ),
    ),
    "highest": Set("3.13"),
    "without KerasCV": Set("3.12", removed=("keras-cv", "keras-core")),
    "nightly": Set("3.12", removed=("keras", "keras-cv", "keras-core"), added=("keras-nightly",)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / "build" / "matrix")
    arguments = parser.parse_args()
    for name in arguments.sets:
        if name not in SETS:
            parser.error(f"SET must be one of {', '.join(SETS)}. Received: {name}")
    failed = 0
    for name in arguments.sets or SETS:
        folder = arguments.directory.resolve() / name.replace(" ", "-")
        python = install(SETS[name], folder)
        counts = run_tests(python, folder)
        failed += counts["failed"]
        write_row(name, versions(python), counts)
    return 1 if failed else 0


def install(versions_of, folder):
    """Recreates the environment and returns its Python."""
    python = folder / "bin" / "python"
    uv("venv", "--quiet", "--clear", "--python", versions_of.python, folder)
    pip = ("pip", "install", "--quiet", "--python", python)
    uv(*pip, *versions_of.options, ".[train]", *RUNNERS, *versions_of.pins)
    if versions_of.removed:
        uv("pip", "uninstall", "--quiet", "--python", python, *versions_of.removed)
    if versions_of.added:
        uv(*pip, "--no-deps", "--prerelease", "allow", *versions_of.added)
    uv("pip", "uninstall", "--quiet", "--python", python, "keras-crossvit")  # the source is tested
    return python


def uv(*arguments):
    subprocess.run([sys.executable, "-m", "uv", *map(str, arguments)], cwd=ROOT, check=True)


def run_tests(python, folder):
    """Runs the tests one process after another and counts the outcomes.

    Returns:
        `{"passed": int, "failed": int, "skipped": int}`; a run that pytest could not begin or
        finish counts as one failure.
    """
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for number, run in enumerate(RUNS):
        report = folder / f"run-{number}.xml"
        # With `-p no:cacheprovider` the sets do not overwrite each other's list of failures.
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, *run], cwd=ROOT, env=environment, check=False)
        if not report.exists():
            counts["failed"] += 1
            continue
        suite = ElementTree.parse(report).getroot().find("testsuite")
        failed = int(suite.get("failures")) + int(suite.get("errors"))
        skipped = int(suite.get("skipped"))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests")) - failed - skipped
    return counts


def versions(python):
    """The versions of an environment, Python's first."""
    code = (
        "import importlib.metadata as m, platform, sys\n"
        "names = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "names.setdefault('keras', names.get('keras-nightly'))\n"
        "print(platform.python_version(), *(names[name] for name in sys.argv[1:]))"
    )
    command = [python, "-c", code, *REPORTED]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def write_row(name, found, counts):
    """Puts a result into the table of `docs/versions.md`, replacing the set's last one."""
    cells = [name, *found, *counts.values(), datetime.date.today().isoformat(), processor()]
    row = f"| {' | '.join(map(str, cells))} |"
    page = PAGE.read_text(encoding="utf-8")
    page, found = re.subn(rf"^\| {re.escape(name)} \|.*$", lambda _: row, page, flags=re.MULTILINE)
    assert found == 1, f"{PAGE} has no row for {name}"
    PAGE.write_text(page, encoding="utf-8")
    print(row)


def processor():
    """The processor's name and its number of cores."""
    description = pathlib.Path("/proc/cpuinfo")
    text = description.read_text(encoding="utf-8") if description.exists() else ""
    name = re.search(r"model name\s*: (.+)", text)
    return f"{name[1] if name else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
