"""`crossvit predict` in a clone: `python recipes/predict.py --help` says what it takes."""

from keras_crossvit.commands import run

if __name__ == "__main__":
    run("predict")
