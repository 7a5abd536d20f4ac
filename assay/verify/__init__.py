"""Checks whether this set-up gives the scores that it should."""
