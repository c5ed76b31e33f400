"""Converts a checkpoint: `crossvit convert SOURCE DESTINATION`.

    crossvit convert crossvit_15_dagger_224.pth crossvit_15_dagger.safetensors
    crossvit convert runs/imagenet/model.keras for_timm.safetensors

From timm's or the authors' files (`.safetensors`, `.pth`) or a `.keras` model of this package
to `.safetensors` (timm's names), `.keras` or `.weights.h5`. A custom architecture must be a
preset, which `--recipe FILE.py` registers.
"""

import argparse

from keras_crossvit.commands.shared import add_recipe, errors_in_one_line, run_recipe
from keras_crossvit.conversion import convert


def main() -> None:
    """Converts as the process's arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("destination", metavar="DESTINATION")
    add_recipe(parser)
    arguments = parser.parse_args()
    with errors_in_one_line():
        run_recipe(arguments)
        model = convert(arguments.source, arguments.destination)
    print(f"{arguments.destination}: {model.name}, {model.count_params():,} parameters")
