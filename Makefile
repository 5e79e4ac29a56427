# Every target sets up $(VENV) by itself: Python >= 3.11, make and a package index are all it needs.
# Another interpreter: make test PYTHON=python3.12. More for pytest: make test ARGS="-k manifest -x".

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
SOAK ?= 20
SOAKED := tests/audio tests/features/store
OLDEST ?= .venv-oldest
# What meets other libraries most, in a few minutes.
SAMPLED := tests/features/test_encoders.py tests/features/test_melstats.py tests/features/test_wavlm.py \
    tests/features/test_transformers.py tests/features/test_weights.py tests/features/extraction/test_extract.py \
    tests/features/store/test_store.py tests/features/store/test_compaction.py tests/features/store/test_remote.py \
    tests/audio/test_containers.py tests/audio/test_windows.py tests/test_resampling.py tests/test_manifest.py \
    tests/test_metrics.py tests/test_recipe.py tests/test_registry.py tests/statistics tests/ensembles/heads \
    tests/ensembles/test_heads.py tests/ensembles/test_pooled.py tests/ensembles/test_layersum.py \
    tests/ensembles/test_onnx.py tests/ensembles/test_tuning.py tests/ensembles/bundle/test_golden.py \
    tests/hub/test_push_and_pull.py tests/scoring/test_scorer.py tests/scoring/test_metric.py \
    tests/scoring/test_tables.py tests/submissions/test_check.py tests/submissions/test_write.py tests/app/test_view.py \
    tests/parallel/test_clusters.py::test_results_are_those_of_one_process_in_their_order \
    tests/parallel/test_loky.py::test_results_in_order_are_those_of_the_tasks_in_order tests/cli/test_inputs.py
# Read by promise to the last line and branch.
COVERED := mmmos/features/store/*,mmmos/manifest/*,mmmos/submissions/check.py,mmmos/ensembles/bundle/*

BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS)
DECLARED := setup.cfg pyproject.toml $(CONSTRAINTS)
SHELVES := features ensembles submissions

# Else each of the hundreds of processes that the tests start compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint check soak oldest coverage docs reference notebook dist installed bench fix shelves clean

help:
	@echo "make demo     synthesize a small rated corpus and run the whole pipeline on it (demo/)"
	@echo "make test     the tests"
	@echo "make check    format, lint, types and tests"
	@echo "make soak     the store and the decoder under kills, faults and damage, SOAK=20 times as often as in the tests"
	@echo "make oldest   some of the tests with the oldest versions that setup.cfg admits, in $(OLDEST)"
	@echo "make coverage the tests, with the lines and branches that none of them reaches"
	@echo "make docs     the documentation, as docs/_build/index.html; its notebook is run"
	@echo "make reference write docs/reference/ from the code"
	@echo "make notebook run docs/tutorials/story.ipynb and store what it shows"
	@echo "make dist     the wheel and the source archive, in dist/"
	@echo "make installed the wheel in an empty environment: versions, help, a demo"
	@echo "make bench    quick benchmarks against what people do today"
	@echo "make fix      format, and mend what the linter can mend"
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

oldest:
	@$(MAKE) --no-print-directory test VENV=$(OLDEST) CONSTRAINTS=constraints-oldest.txt ARGS="$(SAMPLED) $(ARGS)"

coverage: $(VENV)/.test
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal $(ARGS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --fail-under=95
	@$(BIN)/coverage report --include='$(COVERED)' --fail-under=100

docs: $(VENV)/.docs
	@$(BIN)/pytest -m notebook tests/test_notebook.py
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

reference: $(VENV)/.test
	@$(BIN)/python docs/generate

notebook: $(VENV)/.test
	@cd docs/tutorials && $(abspath $(BIN))/python -c "import nbclient, nbformat; \
	story = nbformat.read('story.ipynb', 4); nbclient.NotebookClient(story, record_timing=False).execute(); \
	nbformat.write(story, 'story.ipynb')"

dist: $(VENV)/.test
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	@ls dist

# Nothing of the checkout is in reach: another folder, another home, an environment with the wheel and what it needs.
installed: dist
	@empty=$$(mktemp -d) && trap 'rm -rf "$$empty"' EXIT && \
	$(PYTHON) -m venv "$$empty/venv" && \
	"$$empty/venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt dist/*.whl && \
	mkdir "$$empty/home" "$$empty/work" && cd "$$empty/work" && \
	env -i HOME="$$empty/home" PATH="$$empty/venv/bin:/usr/bin:/bin" sh -ec \
	'mmmos --version; mmmos --help > /dev/null; mmmos demo --size tiny -q; ls demo/submissions/demo'

bench: $(VENV)/.test
	@for script in benchmarks/*.py; do echo "$$script" && $(BIN)/python "$$script" --quick || exit 1; done

fix: $(VENV)/.test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

shelves:
	@for shelf in $(SHELVES); do mkdir -p $$shelf && cp mmmos/recipes/$$shelf/*.toml mmmos/recipes/$$shelf/*.md $$shelf/; done

clean:
	@rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
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
