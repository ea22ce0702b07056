# ratemill: `make` lists what there is.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check bench nightly mutants docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# pip for the venv: its own, or where Debian's venv makes none (no python3-venv) the system's.
PIP = $$($(BIN)/python -m pip --version >/dev/null 2>&1 && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
FLAGS := --quiet --require-hashes --only-binary :all:
# uv is fast (and compiles what Python loads, so that the first command of each kind need not); where only pip knows the way to the registry (pip.conf), pip does the same, slower.
define install
	@$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python $(1) 2>$(VENV)/install.log \
	  || { echo "uv could not do it (see $(VENV)/install.log), trying pip"; $(PIP) install --disable-pip-version-check $(1); }
endef

$(BIN)/uv: requirements-bootstrap.lock
	@test -n "$(PYTHON)" || { echo "ratemill needs Python 3.11 or later"; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PIP) install --disable-pip-version-check $(FLAGS) -r requirements-bootstrap.lock
	@touch $@

$(VENV)/.run: $(BIN)/uv requirements.lock requirements-build.lock pyproject.toml
	@echo "installing what ratemill needs (requirements.lock)"
	$(call install,$(FLAGS) -r requirements.lock)
	$(call install,$(FLAGS) -r requirements-build.lock)
	$(call install,--quiet --no-deps --no-build-isolation -e .)
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "installing what the tests need (requirements-dev.lock)"
	$(call install,$(FLAGS) -r requirements-dev.lock)
	@touch $@

setup: $(VENV)/.run ## make the virtual environment with pinned, hashed dependencies

setup-dev: $(VENV)/.dev ## the same with what tests and checks need

demo: $(VENV)/.run ## run the main job for a demo town: from UDP packets to invoices
	@$(BIN)/ratemill demo

test: $(VENV)/.dev ## run the tests, on two cores (JOBS=0: one after the other)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(VENV)/.dev ## lint, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure speed; each run adds a line to benchmarks/history.jsonl
	@$(BIN)/python -m benchmarks

nightly: $(VENV)/.dev ## the long loops: full counts of crash and fuzz tests
	@RATEMILL_NIGHTLY=1 $(BIN)/python -m pytest -m "nightly or not nightly"

mutants: $(VENV)/.dev ## mistakes made on purpose in the modules that reckon money: which does no test notice?
	@PYTHONPATH=tests $(BIN)/python -m mutation.mutants

docs: $(VENV)/.dev ## write the generated reference pages
	@$(BIN)/python docs/generate.py

lock: $(BIN)/uv ## resolve the dependencies anew
	@for target in "requirements.lock pyproject.toml" "requirements-dev.lock --group dev pyproject.toml"; do set -- $$target; out=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url "$$@" -o $$out; done
	@echo "hatchling editables" | tr ' ' '\n' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url -o requirements-build.lock -
	@echo "uv" | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url -o requirements-bootstrap.lock -

clean: ## remove the virtual environment, caches and the demo's home
	rm -rf $(VENV) demo-home .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
