"""``python -m mmmos`` is the command ``mmmos``."""

from mmmos.cli import main

if __name__ == "__main__":
    main()
