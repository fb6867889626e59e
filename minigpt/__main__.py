"""`python -m minigpt` is `minigpt`."""

from minigpt.cli.main import main

if __name__ == "__main__":
    main()
