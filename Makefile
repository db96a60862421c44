# convscope: `make demo` trains, explains and shows; `make test` checks everything. Both set up .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check format bench clean

demo: .venv/demo.stamp
	@$(BIN)/convscope demo

test: .venv/test.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: .venv/test.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal -m "study or not study"

check: .venv/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/test.stamp
	for bench in bench/*.py; do $(BIN)/python $$bench || exit 1; done

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "convscope needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/test.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@ .venv/demo.stamp

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
