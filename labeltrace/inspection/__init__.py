"""Labels and activations at any node, and where in the image they lie."""
