"""`crossvit export` in a clone: `python recipes/export.py --help` says what it takes."""

from crossvit_command import run

if __name__ == "__main__":
    run("export")
