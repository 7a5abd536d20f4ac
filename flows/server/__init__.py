"""Prefect's server: find the configured one or start one, follow runs of deployments, announce results."""
