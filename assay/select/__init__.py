"""Scores → decisions: rules are parsed, and every record gets a decision."""
