"""Assay rates every assistant turn of a chat dataset and writes labelled training data."""

__version__ = "0.1.0"
