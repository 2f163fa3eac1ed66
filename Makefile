# DraftGym's tasks. `make help` lists them; each sets up .venv first where it needs it.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# Two workers with one thread each: more threads only fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train demo test test-slow test-all format lint type bench hooks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(STAMP) ## Train a policy with PPO and compare it (ten minutes or so)
	$(PY) train.py policy=ppo

demo: $(STAMP) ## Decode one prompt with the embedded models
	$(PY) -m spec_core "def fibonacci(n):" --max-new-tokens 96

test: $(STAMP) ## Run the tests, all but the slow ones
	$(PYTEST) -m "not slow"

test-slow: $(STAMP) ## Run the slow tests only
	@if grep -rqsE 'mark\.slow' --include='*.py' tests; then \
		set -x; $(PYTEST) -m slow; \
	else \
		echo "No test is marked slow."; \
	fi

test-all: $(STAMP) ## Run every test
	$(PYTEST)

format: $(STAMP) ## Format the code and apply the linter's safe fixes
	$(PY) -m ruff check --fix --exit-zero --quiet .
	$(PY) -m ruff format .

lint: $(STAMP) ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: $(STAMP) ## Check the types
	$(PY) -m mypy

bench: $(BENCH_STAMP) ## Run the benchmarks; figures go to benchmarks/results
	$(PY) -m benchmarks.speed --threads 1 --per-domain 4
	$(PY) -m benchmarks.curves --threads 1 --repeats 12
	$(PY) -m benchmarks.decide
	$(PY) -m benchmarks.loads
	$(PY) -m benchmarks.replay
	$(PY) -m benchmarks.tables

hooks: $(STAMP) ## Install the pre-commit hooks
	$(PY) -m pre_commit install

clean: ## Remove caches and build products (keeps .venv and runs/)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

# The environment, made anew only when the dependencies or their pins have changed.
$(STAMP): pyproject.toml constraints.txt bootstrap.py
	$(PYTHON) bootstrap.py $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,sweep,dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
