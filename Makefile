PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo serve test lint clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/python -m flows.curate --config samples/demo.yaml

# Prefect's pages with the deployments and a worker, on loopback, until Ctrl-C.
serve: .venv/installed
	$(BIN)/python -m deployments.serve

test: .venv/installed-test
	$(BIN)/pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs
