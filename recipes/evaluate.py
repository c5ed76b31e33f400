"""`crossvit evaluate` in a clone: `python recipes/evaluate.py --help` says what it takes."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes would hide what is said

from keras_crossvit.commands import run

if __name__ == "__main__":
    run("evaluate")
