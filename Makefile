# node-runner's commands; `make help` lists them.
#
#   make run ARGS="dataset=oscillator"       what to add to a command
#   make setup PYTHON=/path/to/python3.12    which Python makes the environment
#   make test VENV=/path/to/environment      where the environment is

# The first Python that runs, is 3.11 to 3.13, and can make environments.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; \
	done)
VENV ?= .venv
ARGS ?=

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: help setup run sweep board test test-all lint format typecheck check bench figures gpu-check wheel clean distclean
.DEFAULT_GOAL := help

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## make the environment, if it is missing or out of date

# A stamp: made again only when what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 with venv here; name one: make setup PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

run: $(INSTALLED) ## train: dopri5 on the spiral; ARGS="dataset=oscillator" changes or adds settings
	$(BIN)/node-run dataset=spiral solver=dopri5 $(ARGS)

sweep: $(INSTALLED) ## compare two solvers at two tolerances on the spiral; ARGS as for run
	$(BIN)/node-run -m dataset=spiral solver=dopri5,bosh3 tolerance=loose,tight trainer.steps=200 $(ARGS)

board: $(INSTALLED) ## show the runs in TensorBoard
	$(BIN)/node-run board $(ARGS)

test: $(INSTALLED) ## run the tests but for the long ones; ARGS="-m slow" runs those alone
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(INSTALLED) ## run every test
	$(PYTEST) $(ARGS)

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

typecheck: $(INSTALLED) ## check the types
	$(BIN)/mypy node_runner

check: lint typecheck test-all ## what a change has to pass: lint, typecheck, test-all

bench: $(INSTALLED) ## run every benchmark
	set -e; for script in scripts/bench_*.py; do $(BIN)/python $$script $(ARGS); done

figures: $(INSTALLED) ## draw the figures of runs again; ARGS="outputs/RUN --formats pdf"
	$(BIN)/node-run figures $(ARGS)

gpu-check: $(INSTALLED) ## check and measure on a CUDA GPU
	$(BIN)/python scripts/gpu_check.py $(ARGS)

wheel: $(INSTALLED) ## build the sdist and the wheel into dist/
	$(BIN)/python -m build

clean: ## remove builds and caches; outputs/ stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find configs node_runner scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)
