"""The architectures that the library is proven on."""
