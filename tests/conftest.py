"""Fixtures for all tests. Being here, it also puts this folder on the path of the tests below it."""
