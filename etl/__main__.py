"""`python -m etl` is `persona-etl`."""

from etl.cli.main import main

if __name__ == "__main__":
    main()
