"""Code generation: from the label steps of a trace to one module with the forward pass."""
