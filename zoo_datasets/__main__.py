"""`python -m zoo_datasets`."""

import sys

from zoo_datasets.cli import main

if __name__ == "__main__":
    sys.exit(main())
