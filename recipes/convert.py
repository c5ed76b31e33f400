"""Converts a checkpoint: `python recipes/convert.py SOURCE DESTINATION`.

    python recipes/convert.py crossvit_15_dagger_224.pth crossvit_15_dagger.safetensors
    python recipes/convert.py runs/imagenet/model.keras for_timm.safetensors

From timm's or the authors' files (`.safetensors`, `.pth`) or a `.keras` model of this package
to `.safetensors` (timm's names), `.keras` or `.weights.h5`.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_crossvit.conversion import convert


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("destination", metavar="DESTINATION")
    arguments = parser.parse_args()
    model = convert(arguments.source, arguments.destination)
    print(f"{arguments.destination}: {model.name}, {model.count_params():,} parameters")


if __name__ == "__main__":
    main()
