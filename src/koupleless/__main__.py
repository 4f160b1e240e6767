"""``python -m koupleless`` is ``arkctl``."""

import sys

from koupleless.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
