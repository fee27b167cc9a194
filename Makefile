# Everything runs in a virtual environment in .venv, made at first need and again when pyproject.toml changes.
# `make` alone lists the targets. For another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo-run
# Empty, or a folder whose manifest says that loadgen made it: nothing else is ever removed.
OLD_DEMO = $(if $(wildcard $(DEMO)/manifest.json),$(DEMO))
SLOWEST := --durations=25 --durations-min=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types package test-real bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing loadgen and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY) ## measure the built-in emulator: a summary here, the report in demo-run/report.html
	@rm -rf $(OLD_DEMO)
	@$(BIN)/loadgen run quickstart --emulator --out $(DEMO)
	@echo "open $(DEMO)/report.html in a browser; it needs no network"

test: $(READY) ## the gate: format, lint, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile -m 'not alone' $(SLOWEST) # many wait for servers of their own
	$(BIN)/pytest -m alone $(SLOWEST)

lint: $(READY) ## ruff check
	$(BIN)/ruff check

format: $(READY) ## rewrite the sources in the one format
	$(BIN)/ruff format
	$(BIN)/ruff check --select I --fix

types: $(READY) ## mypy --strict
	$(BIN)/mypy

package: $(READY) ## build the wheel, install it alone in a fresh environment, run it from another directory
	$(BIN)/python -m tests.package

test-real: $(READY) ## tests against real servers; installs them at first use, which takes long
	$(BIN)/pytest -o addopts='-q --strict-markers --strict-config' tests/real

bench: $(READY) ## the speed and memory table; appends to tests/bench/RESULTS.md
	$(BIN)/python -m tests.bench.speed --keep

clean: ## remove the environment, the caches and the demo's output
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(OLD_DEMO)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
