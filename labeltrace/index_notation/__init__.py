"""Index notation: products of tensors with their axes by name, parsed once and held as data.

A rule is written in it (`"... i, o i -> ... o"`), and so is the generated label program
(`"b h q k, b k -> b q"`).  In between, equations are objects.
"""
