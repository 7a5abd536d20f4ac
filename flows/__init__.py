"""What a person runs: ``python -m flows.NAME``. Parameters, the order of stages, what the console shows."""
