"""`cumulet`, also as `python -m cumulet`."""

from cumulet.cli import cumulet


def main() -> None:
    """Run the command line; ends the process."""
    cumulet(prog_name="cumulet")


if __name__ == "__main__":
    main()
