"""A run's options, and an operator's settings."""
