"""``python -m labeltrace``, which torchrun takes as ``-m labeltrace``."""

from labeltrace.cli.app import main

if __name__ == "__main__":
    main()
