"""`python -m labelgen` is the command line."""

from labelgen.cli import main

main()
