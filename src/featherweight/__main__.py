"""``python -m featherweight``."""

from featherweight.cli import main

if __name__ == "__main__":
    main()
