"""What "fair" means: protocol, trials, statistics, report."""
