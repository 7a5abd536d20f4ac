"""Dask workers: starting them, reaching them, handing shards to them."""
