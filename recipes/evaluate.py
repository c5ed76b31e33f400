"""`crossvit evaluate` in a clone: `python recipes/evaluate.py --help` says what it takes."""

from crossvit_command import run

if __name__ == "__main__":
    run("evaluate")
