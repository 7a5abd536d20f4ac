"""How well a reward model ranks answers: benchmarks, preference data and human labels."""
