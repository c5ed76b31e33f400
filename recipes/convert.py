"""`crossvit convert` in a clone: `python recipes/convert.py --help` says what it takes."""

from keras_crossvit.commands import run

if __name__ == "__main__":
    run("convert")
