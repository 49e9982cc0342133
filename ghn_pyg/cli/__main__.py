"""``python -m ghn_pyg.cli`` is ``ghn-pyg``."""

from . import main

if __name__ == "__main__":
    main()
