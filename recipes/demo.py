"""`crossvit demo` in a clone: `python recipes/demo.py --help` says what it takes."""

from crossvit_command import run

if __name__ == "__main__":
    run("demo")
