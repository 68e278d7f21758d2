"""`python -m aumcli` is `aum`."""

from aumcli.cli import main

main()
