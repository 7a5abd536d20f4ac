"""Prefect's server: the one that is configured or one of our own, remote runs, announcements."""
