"""Reward models that are reached over HTTP: a module for each protocol, one for retries, one for pace."""
