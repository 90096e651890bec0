"""`python -m jaxviz` is `jaxviz`."""

from jaxviz.cli import main

if __name__ == "__main__":
    main()
