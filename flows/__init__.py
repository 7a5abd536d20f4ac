"""What a person runs: each flow's options, the order of its stages, and what the console shows."""
