"""From a model to a graph of ATen operators, and what the nodes of that graph say."""
