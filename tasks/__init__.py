"""The stages as Prefect tasks: retries, caching and artifacts around one function of ``assay`` each."""
