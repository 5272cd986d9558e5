"""Recording: a model runs as it is, and each of its operator calls is written down meanwhile."""
