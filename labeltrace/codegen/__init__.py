"""From the flows of a trace to a program beside the forward pass."""
