"""Scores → decisions: parse the rules, then decide on every record."""
