"""``python -m flows.evaluate``: the same as ``assay evaluate``."""

from flows.command.main import run_module

if __name__ == "__main__":
    run_module("evaluate")
