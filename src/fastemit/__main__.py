"""`python -m fastemit`."""

import sys

from fastemit.cli import main

if __name__ == "__main__":
    sys.exit(main())
