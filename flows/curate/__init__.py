"""The flow of ``assay curate``: read, score, select, export, report."""
