# make demo    the whole flow on a rendered stranger; open demo/report.html
# make test    the tests          make lint    ruff, mypy, vermin
# make unit    the tests without tests/chain, which runs the whole flow
# make check   lint and test: what CI runs
# make docs    regenerate docs/cli.md and docs/settings.md
# make lock    rewrite requirements.lock from .venv (see tools/lock.py)
# make clean   remove caches and demo/; keeps .venv
#
# Everything is installed into .venv, once: again only when the lock or pyproject.toml changes.
# Without make (Windows): python -m venv .venv, then the two pip lines below, then oblik demo.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test unit check lint format docs lock clean
.NOTPARALLEL:

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV) (the first time takes minutes)"
	@$(PIP) install --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/oblik demo

test: $(STAMP)
	@$(BIN)/python -m pytest

unit: $(STAMP)
	@$(BIN)/python -m pytest --ignore=tests/chain

lint: $(STAMP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/vermin --quiet --no-tips --violations --target=3.10- --eval-annotations src tests tools benchmarks
	@$(BIN)/mypy --no-error-summary

check: lint test

format: $(STAMP)
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

docs: $(STAMP)
	@$(BIN)/python -m oblik.cli.docs docs

lock: $(STAMP)
	@$(BIN)/python tools/lock.py

clean:
	@rm -rf demo build dist .mypy_cache .ruff_cache .pytest_cache
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf
