"""Versions of packages, read without importing them: importing torch takes seconds."""

from __future__ import annotations

import importlib.metadata
import platform

#: Assay's own.
VERSION = "0.1.0"


def installed(*packages: str) -> dict[str, str | None]:
    """Versions by package, Python's first; None for a package that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions
