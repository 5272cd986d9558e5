"""The version of the package; pyproject.toml reads it from here, so this file imports nothing."""

__version__ = "0.1.0"
