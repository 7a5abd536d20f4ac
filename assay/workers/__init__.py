"""Dask workers: starting them, reaching them, handing jobs of any stage to them."""
