"""The ``gsdistill`` command, which is ``python -m gsdistill`` too: Ctrl-C ends it quietly from its first import on."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    try:
        from gsdistill.core.threads import sleep_soon

        sleep_soon()
        from gsdistill.cli.main import execute

        code = execute(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
