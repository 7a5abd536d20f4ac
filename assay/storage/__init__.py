"""Whole files or none: the home folder, manifests, the disk's faults, S3."""
