# Two commands for a fresh machine with Python 3.11 and make:
#   make demo    a cluster on this machine, a real job, and nothing left afterwards
#   make test    everything
# `make test-fast` is for the daily loop.

SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
NAME ?= demo

.PHONY: demo test test-fast lint types floors unit simulation chaos machines clean

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	# An editable installation has no byte-code until it ran once, and none ever under PYTHONDONTWRITEBYTECODE.
	$(BIN)/python -m compileall -q distributed_core dec2
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test,dask]'
	touch $@

demo: $(VENV)/.installed
	@bash examples/demo.sh $(BIN) $(NAME)

test: lint types floors unit simulation chaos machines
	@echo "make test: all passed"

test-fast: $(VENV)/.installed-test
	SIM_SEEDS=60 FUZZ_EXAMPLES=0.25 $(BIN)/python -m pytest -m "not (cloud or slow or process or ssh or docs)" -x

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

floors: $(VENV)/.installed-test
	$(BIN)/lint-imports

unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not cloud"

simulation: $(VENV)/.installed-test
	$(BIN)/python -m tests sim --seeds 2000

# Real processes on hosts of their own under real faults, and faults in the house that it must notice.
chaos: $(VENV)/.installed-test
	$(BIN)/python -m tests chaos --plants
	$(BIN)/python -m tests chaos --seconds 120 --seed 1

# Real machines, booted in a throw-away namespace; the tests say so where the host cannot.
machines: $(VENV)/.installed-test
	$(BIN)/python -m moto_fixtures tests

clean:
	rm -rf $(VENV) build dist *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
