# The only verbs: make help lists them.

SHELL := /bin/bash
MINUTES ?= 15
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo check test bench
.DEFAULT_GOAL := help

help: ## say what each verb does
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY) ## make .venv with everything needed to train, test and measure

demo: $(READY) ## pull the model, train it for MINUTES (15) minutes, show what it learned
	PATH="$(CURDIR)/$(BIN):$$PATH" MINUTES="$(MINUTES)" bash runs/demo.sh

check: $(READY) ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror native/*.h native/*.cpp native/*.inl tests/native/*
	$(BIN)/mypy

test: check ## check, then every test
	$(BIN)/python -m pytest

bench: $(READY) ## measure against the peers; one ratio a script
	@set -e; for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

# PYTHON=/path/to/python3 chooses the interpreter; else the first of these that is 3.11 or newer and has venv.
$(READY): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for python in $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14) none; do \
	    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "smallpress needs Python 3.11 or newer with venv; install it, or name it: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  "$$python" -m venv --clear .venv; \
	fi
	@echo 'installing into .venv: about 1.3 GB with torch, some minutes'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,serve,math,dev]'
	@touch $@
