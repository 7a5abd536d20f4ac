"""``python -m flows.curate``: the same as ``assay curate``."""

from flows.command.main import run_module

if __name__ == "__main__":
    run_module("curate")
