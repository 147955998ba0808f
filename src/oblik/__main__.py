"""``python -m oblik``."""

from oblik.cli import main

if __name__ == "__main__":
    main(prog_name="oblik")
