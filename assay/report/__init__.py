"""What happened: the run's manifest, its summary, its pictures."""
