PYTHON ?= python3
BIN := .venv/bin
# Tests wait for most of their time: more at once than there are cores.
AT_ONCE ?= 4
# Modules are compiled once, not once a process: the tests start hundreds.
export PYTHONDONTWRITEBYTECODE =
PYTEST := $(BIN)/pytest -n $(AT_ONCE)

.PHONY: demo serve test test-fast test-operated test-faults test-loaders coverage lint format clean

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

# All but the two kinds that have a target of their own.
test: .venv/installed-test
	$(PYTEST) -m "not operated and not faults" --ignore tests/loaders

# For the inner loop: no Prefect server, no Dask process, no browser. These do not wait: one a core.
test-fast: .venv/installed-test
	$(BIN)/pytest -n 3 -m "not slow and not operated and not faults" --ignore tests/loaders

# A server, workers, PostgreSQL and a browser; what is not installed is skipped, and named. Each test keeps both
# cores of a small machine busy by itself. Tests that promise a number of seconds run last, one by one.
test-operated: .venv/installed-test
	$(BIN)/pytest -n 2 -m "operated and not timed" -rs
	$(BIN)/pytest -m "operated and timed" -rs

# Processes that are killed, servers that die, files that are damaged, runs that want the same; then a minute in
# which such faults strike real runs at random.
test-faults: .venv/installed-test
	$(PYTEST) -m faults
	$(BIN)/python benchmarks/soak.py --minutes 1

# The loaders of the trainers that exports are for, each in an environment of its own: some 6 GB, some minutes.
test-loaders: .venv/installed-test
	$(BIN)/python tests/loaders/venvs.py
	$(BIN)/pytest tests/loaders -rs

coverage: .venv/installed-test
	$(PYTEST) -m "not operated and not faults" --cov

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .loaders runs
