"""The console script `crossvit`, outside of the package, which imports TensorFlow."""

import os


def main() -> None:
    """Runs the command that the first argument names."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notes would hide what is said
    from keras_crossvit.commands import main as choose

    choose()
