"""`python -m tickless` is `tickless`."""

from tickless.cli.main import main

if __name__ == "__main__":
    main()
