"""``python -m cifarml``: the command line, where no program of that name is installed."""

from cifarml.cli.main import main

main()
