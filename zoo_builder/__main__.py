"""`python -m zoo_builder`."""

import sys

from zoo_builder.cli import main

if __name__ == "__main__":
    sys.exit(main())
