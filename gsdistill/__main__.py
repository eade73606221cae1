"""``python -m gsdistill`` is the ``gsdistill`` command."""

from gsdistill.cli import main

if __name__ == "__main__":
    main()
