"""Tracing: one walk over the recorded calls of a model that applies the rules."""
