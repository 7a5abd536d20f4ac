"""Records → scores: what is missing is planned, scored by workers or services, and stored."""
