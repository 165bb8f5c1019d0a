# Everything runs from a virtual environment in .venv, which the first target that needs it makes: a bare machine with
# Python 3.11 or newer is enough. No server is needed either: Postgres comes as a wheel.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first that is new enough; `make PYTHON=/path/to/python run` chooses another.
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
HOME_FOLDER ?= .tickless
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: run test check bench chaos planted fix help

run: $(READY)  ## Start everything with the four examples running, in the foreground; Ctrl-C stops it
	@echo 'In a second terminal:'
	@echo '  export TICKLESS_HOME=$(abspath $(HOME_FOLDER)) PATH=$(abspath $(BIN)):$$PATH'
	@echo '  tickless run list;  tickless task list 1;  tickless run start etl_csv --wait;  tickless --help'
	@echo
	@$(BIN)/tickless dev examples --home $(HOME_FOLDER) \
		--start etl_csv --start fan_out_files --start branch_bash --start flaky_retries $(ARGS)

test: export TICKLESS_STRICT_EVENTS := 1
test: $(READY)  ## Run the tests, on a private Postgres
	$(BIN)/python -m pytest -m 'not chaos' -n 4 --dist loadfile $(ARGS)

check: $(READY)  ## Lint, format, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(READY)  ## Measure the claims of the README on this machine
	$(BIN)/python -m benchmarks $(ARGS)

chaos: export TICKLESS_CHAOS ?= 1
chaos: $(READY)  ## Long fault runs: hundreds of kills, deeper random schedules
	$(BIN)/python -m pytest tests/property tests/scenario --timeout 3600 $(ARGS)

planted: $(READY)  ## Show that each planted sabotage turns its test red
	$(BIN)/python -m tests.planted $(ARGS)

fix: $(READY)  ## Mend what can be mended: lints, format, generated pages
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format
	$(BIN)/python -m tickless.config.reference
	$(BIN)/python -m tickless.authoring.reference
	$(BIN)/python -m tickless.api.reference
	$(BIN)/python -m tickless.cli.reference
	$(BIN)/python -m tickless.cli.states
	$(BIN)/python -m tickless.telemetry.reference

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

# Groups of dependencies need pip 25.1; what a distribution brings is often older.
$(READY): pyproject.toml
	@if [ -z '$(PYTHON)' ]; then echo 'tickless needs Python 3.11 or newer (apt-get install python3)' >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
		then apt-get update -qq && apt-get install -y -qq "$$package" >/dev/null; \
		else echo "Python cannot make virtual environments: apt-get install $$package" >&2; exit 1; fi; }
	@test -x $(BIN)/python || { echo 'making $(VENV) …'; $(PYTHON) -m venv $(VENV); }
	@echo 'installing into $(VENV) …'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@
