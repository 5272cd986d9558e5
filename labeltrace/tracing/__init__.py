"""The one walk that applies the rules to a captured graph, and what it finds."""
