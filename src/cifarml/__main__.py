"""Entry point of ``python -m cifarml``."""

from cifarml.cli.main import main

main()
