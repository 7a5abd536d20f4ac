"""``python -m flows.curate``: read, score, select, export, report."""
