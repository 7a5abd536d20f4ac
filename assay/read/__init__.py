"""Anything → records: which files there are, how they are cut, how each row becomes messages."""
