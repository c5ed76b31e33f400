"""`crossvit convert` in a clone: `python recipes/convert.py --help` says what it takes."""

from crossvit_command import run

if __name__ == "__main__":
    run("convert")
