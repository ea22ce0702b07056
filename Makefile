# ratemill: `make` lists what there is.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check bench nightly docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(BIN)/uv: requirements-bootstrap.lock
	@test -n "$(PYTHON)" || { echo "ratemill needs Python 3.11 or later"; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-bootstrap.lock
	@touch $@

$(VENV)/.run: $(BIN)/uv requirements.lock pyproject.toml
	@echo "installing what ratemill needs (requirements.lock)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --only-binary :all: -r requirements-build.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "installing what the tests need (requirements-dev.lock)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.run ## make the virtual environment with pinned, hashed dependencies

setup-dev: $(VENV)/.dev ## the same with what tests and checks need

demo: $(VENV)/.run ## run the main job for a demo town: from UDP packets to invoices
	@$(BIN)/ratemill demo

test: $(VENV)/.dev ## run the tests
	@$(BIN)/python -m pytest

check: $(VENV)/.dev ## lint, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure speed against peers and physical limits
	@$(BIN)/python -m benchmarks

nightly: $(VENV)/.dev ## the long loops: full counts of crash and fuzz tests
	@RATEMILL_NIGHTLY=1 $(BIN)/python -m pytest -m "nightly or not nightly"

docs: $(VENV)/.dev ## write the generated reference pages
	@$(BIN)/python docs/generate.py

lock: $(BIN)/uv ## resolve the dependencies anew
	@for target in "requirements.lock pyproject.toml" "requirements-dev.lock --group dev pyproject.toml"; do set -- $$target; out=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url "$$@" -o $$out; done
	@echo "hatchling editables" | tr ' ' '\n' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url -o requirements-build.lock -
	@echo "uv" | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url -o requirements-bootstrap.lock -

clean: ## remove the virtual environment, caches and the demo's home
	rm -rf $(VENV) demo-home .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
