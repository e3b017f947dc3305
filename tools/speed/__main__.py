"""`python -m tools.speed`: every speed measurement of this repository, see bench.py."""

from tools.speed.bench import main

if __name__ == "__main__":
    main()
