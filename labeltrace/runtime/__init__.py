"""Which generated program serves a call, and running it."""
