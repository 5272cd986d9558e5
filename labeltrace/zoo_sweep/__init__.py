"""The sweep over the models zoo: every model is checked in a separate process and reported."""
