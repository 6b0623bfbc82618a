"""What every stage shares: run folder, settings, metrics, errors, seeds."""
