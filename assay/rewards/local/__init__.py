"""Reward models that compute in this process. What needs torch is here, and nowhere else."""
