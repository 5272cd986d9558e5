"""Labels and activations at any node, and the positions of tokens in the image."""
