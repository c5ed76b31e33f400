"""The console script `crossvit`; `recipes/train.py` and the others beside it are its commands.

Outside the package, since TensorFlow can only be kept quiet before the package imports it.
"""

import contextlib
import difflib
import gc
import importlib
import io
import os
import platform
import sys
from collections.abc import Iterator

COMMANDS = {
    "train": "trains by a recipe",
    "evaluate": "measures a model on labelled images",
    "predict": "classifies files and folders",
    "export": "exports for serving and for other runtimes",
    "convert": "converts a checkpoint",
    "demo": "starts a page to try a model in",
}

_BACKENDS = "tensorflow", "jax", "torch"


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: crossvit COMMAND ...\n")
        print(*(f"  {command:10}{does}" for command, does in COMMANDS.items()), sep="\n")
        print("\ncrossvit COMMAND --help shows what a command takes.")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f". Did you mean {close[0]!r}?" if close else ""
        allowed = ", ".join(COMMANDS)
        print(f"COMMAND must be one of {allowed}. Received: {name}{meant}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    run(name)


def run(name: str) -> None:
    """Runs a command with the process's arguments."""
    set_environment()
    if isinstance(sys.stdout, io.TextIOWrapper):  # in a notebook it is not
        sys.stdout.reconfigure(errors="backslashreplace")  # not every name can be printed
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"  # likewise for Keras
    if backend not in _BACKENDS:
        sys.exit(f"KERAS_BACKEND must be one of {', '.join(_BACKENDS)}. Received: {backend}")
    try:
        with _objects_that_stay():
            with _silence():
                import tensorflow  # noqa: F401
            command = importlib.import_module(f"keras_crossvit.commands.{name}")
    except ModuleNotFoundError as error:
        if error.name not in _BACKENDS:  # one may be chosen in ~/.keras/keras.json
            raise
        sys.exit(f'{error.name} is not installed: pip install "keras-crossvit[{error.name}]"')
    try:
        command.main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # what read the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(1)


def set_environment() -> None:
    """Sets variables that TensorFlow reads when it is loaded, unless the user has."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on x86 processors without AVX512-VNNI, though it is faster there
    # too: docs/performance.md. On others its choice stays.
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextlib.contextmanager
def _objects_that_stay() -> Iterator[None]:
    """A context whose objects the garbage collector leaves alone, then and later.

    TensorFlow and Keras make a million while they are imported, which stay to the end. Searching
    them for garbage takes a quarter of the time in which a command starts and ends.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """A context in which nothing reaches stderr.

    TensorFlow's libraries write to it about missing GPUs while they are loaded, before any of
    their settings takes effect. An exception is still shown, after the context.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
    while (nothing := os.open(os.devnull, os.O_RDWR)) < 2:
        pass  # stdin or stdout was closed; no other file may be opened in its place
    if nothing == 2:  # likewise
        yield
        return
    kept = os.dup(2)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
