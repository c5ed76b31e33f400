# `make train`, `make test`, `make fast` and `make docs` make the environment in .venv, once.
# Paths stay relative, so that the folder's own name may contain spaces.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Capture sys: what TensorFlow says on import would otherwise come after the summary line.
# The order of the files, and the number of processes, are those of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --capture sys
export TF_CPP_MIN_LOG_LEVEL ?= 2
# The tests start many processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test fast docs matrix clean

$(READY): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(READY)

train: $(READY)
	$(BIN)/python recipes/train.py --recipe digits --output-dir runs/digits

test: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(PYTEST)

fast: $(READY)
	$(PYTEST) -m "not slow and not main_job"

docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --fresh-env --quiet --conf-dir docs . build/docs
	@echo "Open build/docs/docs/index.html"

# Takes hours: an environment for each set of versions; `$(BIN)/python tools/matrix.py SET` runs one.
matrix: $(READY)
	$(BIN)/python tools/matrix.py

clean:
	rm -rf .venv build dist runs
