"""`python -m labeltrace` (also with torchrun), and the command `labeltrace`."""

import sys

from labeltrace.errors import MissingExtraError
from labeltrace.extras import extra


def main() -> None:
    """Run the command line."""
    try:
        with extra("cli"):
            from labeltrace.cli.app import app
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    app()


if __name__ == "__main__":
    main()
