"""The commands `crossvit train|evaluate|predict|export|convert`, a file each.

`recipes/train.py` and the others beside it are the same commands, for a clone. They, and
`crossvit_command.py`, first tell TensorFlow to be quiet: it hears so only before its import.
"""

import importlib
import sys

_COMMANDS = ("train", "evaluate", "predict", "export", "convert")


def main() -> None:
    """The console script `crossvit`: the first argument chooses the command."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in _COMMANDS:
        print(f"usage: crossvit {{{','.join(_COMMANDS)}}} ...   (--help after one for its own)")
        sys.exit(0 if name in ("-h", "--help") else 2)
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    run(name)


def run(name: str) -> None:
    """Runs a command with the process's arguments."""
    importlib.import_module(f"keras_crossvit.commands.{name}").main()
