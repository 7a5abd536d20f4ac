"""The options of a run, and the settings of an operator."""
