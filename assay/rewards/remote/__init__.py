"""Reward models that are reached over HTTP: a module a protocol, one owner of retries and of pace."""
