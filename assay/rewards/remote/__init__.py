"""Reward models that are reached over HTTP: a module for each protocol, one for retries and one for limits."""
