"""Addresses of what is not on this machine: on S3 (``s3://…``) and on the Hugging Face Hub (``hf://…``)."""

from __future__ import annotations

from assay.storage import hub, s3


def is_remote(path: str) -> bool:
    """Whether the path begins as an address does.

    >>> is_remote("hf://datasets/allenai/tulu-3")
    True
    """
    return s3.is_remote(path) or path.startswith(hub.SCHEME)


def is_place(address: str) -> bool:
    """Whether the text is a valid address of a bucket, a data set, or what lies below one."""
    return s3.is_address(address) or hub.is_data_set(address)
