"""Records → scores: find turns that have none, have workers or a service score them, store the scores."""
