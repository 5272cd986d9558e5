"""`python -m labeltrace`; with torchrun, `torchrun ... -m labeltrace`."""

from labeltrace.cli.app import main

if __name__ == "__main__":
    main()
