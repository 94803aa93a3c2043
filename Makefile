# One environment, .venv: made on first use, renewed when pyproject.toml or constraints.txt change.

PYTHON ?= python3
WORKERS ?= 2
# Passed to pip, for example PIP_FLAGS="--no-cache-dir".
PIP_FLAGS ?=
DEMO_OUT ?= runs/demo

BIN := .venv/bin
READY := .venv/.installed
BENCHES := $(patsubst bench/%.py,bench-%,$(filter-out bench/harness.py bench/methods_jobs.py bench/nni_steps.py,$(sort $(wildcard bench/[a-z]*.py))))

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-long lint format system clean

help:
	@echo "make demo       find, train and hand back a network for handwritten digits"
	@echo "make test       lint, types and all tests but those marked long"
	@echo "make test-fast  the same without the slow tests"
	@echo "make test-long  only the tests that take minutes"
	@echo "make lint       lint and types alone (make format repairs what can be repaired)"
	@echo "make system     as root on Debian: what only the system has (Chromium, Fashion-MNIST)"
	@echo "make bench-NAME a benchmark: $(BENCHES)"
	@echo "make clean      remove the environment, caches and builds; runs/ stays"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Assay needs Python 3.11 or newer, not %d.%d; name one: make PYTHON=python3.12 ..." % v[:2])'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/assay search --out $(DEMO_OUT)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread a worker: the workers share the cores, and sums do not depend on how many there are.
test test-fast test-long: export OMP_NUM_THREADS = 1

test: lint
	$(BIN)/pytest -rs -n $(WORKERS) -m "not long"

test-fast: lint
	$(BIN)/pytest -rs -n $(WORKERS) -m "not long and not slow"

test-long: $(READY)
	$(BIN)/pytest -rs -m long

bench-%: $(READY)
	$(BIN)/python -m bench.$*

system:
	@test "$$(id -u)" = 0 || { echo "make system installs Debian packages; run it as root"; exit 1; }
	apt-get update
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium dataset-fashion-mnist

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
