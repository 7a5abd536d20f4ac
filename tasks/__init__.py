"""The stages as Prefect tasks. Each wraps one function of ``assay`` with retries, a cache and artifacts."""
