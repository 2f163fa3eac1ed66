"""python -m spec_core "prompt": the command line, also when it is interrupted while it loads."""

import sys

from spec_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
