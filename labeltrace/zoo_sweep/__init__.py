"""The sweep over the models zoo: every model checked in a process of its own, and told of."""
