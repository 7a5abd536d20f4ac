"""Command lines: options → an exit code."""
