# Every target sets up $(VENV) by itself: Python >= 3.11, make and a package index are all it needs.
# Another interpreter: make test PYTHON=python3.12. More for pytest: make test ARGS="-k manifest -x".

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
SOAK ?= 20
SOAKED := tests/audio tests/features/store

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
DECLARED := setup.cfg pyproject.toml constraints.txt
SHELVES := features ensembles submissions

.DEFAULT_GOAL := help
.PHONY: help demo test lint check soak docs bench fix commands shelves clean

help:
	@echo "make demo     synthesize a small rated corpus and run the whole pipeline on it (demo/)"
	@echo "make test     the tests"
	@echo "make check    format, lint, types and tests"
	@echo "make soak     the store and the decoder under kills, faults and damage, SOAK=20 times as often as in the tests"
	@echo "make docs     the documentation, as docs/_build/index.html"
	@echo "make bench    quick benchmarks against what people do today"
	@echo "make fix      format, and mend what the linter can mend"
	@echo "make commands write docs/commands.md from the code"
	@echo "make shelves  copy the packaged recipes to features/, ensembles/, submissions/"
	@echo "make clean    remove caches and build outputs; keeps $(VENV) and demo/"

demo: $(VENV)/.test
	@$(BIN)/mmmos demo

test: $(VENV)/.test
	@$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/.test
	@failed=0; for tool in "ruff format --check ." "ruff check ." mypy; do $(BIN)/$$tool || failed=1; done; exit $$failed

check: lint test

soak: $(VENV)/.test
	@MMMOS_SOAK=$(SOAK) $(BIN)/pytest -n $(JOBS) --dist worksteal $(SOAKED) $(ARGS)

docs: $(VENV)/.docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

commands: $(VENV)/.test
	@$(BIN)/python docs/commands.py

bench: $(VENV)/.test
	@for script in benchmarks/*.py; do echo "$$script" && $(BIN)/python "$$script" --quick || exit 1; done

fix: $(VENV)/.test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

shelves:
	@for shelf in $(SHELVES); do mkdir -p $$shelf && cp mmmos/recipes/$$shelf/*.toml mmmos/recipes/$$shelf/*.md $$shelf/; done

clean:
	@rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find mmmos tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "MMMOS needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (a few minutes the first time)" >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.test: $(VENV)/.python $(DECLARED)
	@$(PIP) setuptools wheel
	@$(PIP) --no-build-isolation -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	@$(PIP) --no-build-isolation -e '.[test,docs]'
	@touch $@
