"""What an operated Assay is made of: deployments, a work pool, a container image, a local server."""
