"""Dask workers: where they run, and how shards reach them."""
