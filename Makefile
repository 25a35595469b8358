# Every target makes its own environment when there is none: Python >= 3.11 and make are all that is needed.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BENCHMARKS ?= $(sort $(wildcard benchmarks/[a-z]*.py))

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One torch thread per test process: the processes already fill the cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: demo test check test-all bench
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tidegate needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)  ## train on bundled data, write a run folder and a report
	$(BIN)/python -m tidegate.demo

test: $(STAMP)  ## the tests, slow ones left out
	$(TEST) -m "not slow"

check: $(STAMP)  ## format, lint, types, documentation, import and structure rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir "$(abspath $(VENV))/site"
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_structure.py

test-all: $(STAMP)  ## every test
	$(TEST)

bench: $(STAMP)  ## every script of benchmarks/, or BENCHMARKS="benchmarks/one.py"
	@test -n "$(BENCHMARKS)" || { echo "benchmarks/ holds no script"; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done
