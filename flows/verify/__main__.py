"""``python -m flows.verify``: the same as ``assay verify``."""

from flows.command.main import run_module

if __name__ == "__main__":
    run_module("verify")
