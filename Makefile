# The two commands: `make train` and `make test`. Both make the environment in .venv, once.
# Paths stay relative, so that the folder's own name may hold spaces.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: train test clean

$(READY): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(READY)

train: $(READY)
	$(BIN)/python recipes/train.py --recipe digits --output-dir runs/digits

# Capture sys: what TensorFlow says on import would otherwise come after the summary line.
test: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --capture sys

clean:
	rm -rf .venv runs
