# `make demo` and `make test` make .venv where it is missing; `make test-all`, which CI runs,
# adds the tests that take long.
PYTHON ?= python3
BIN := .venv/bin
TESTS :=

.PHONY: demo test test-all clean

demo: .venv/installed
	$(BIN)/tokret train --config=configs/demo.py --workdir=demo
	$(BIN)/tokret eval --workdir=demo --baselines

test: TESTS = -m "not slow"
test test-all: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(TESTS)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokret needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-test: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/installed

clean:
	rm -rf .venv demo
