"""`python -m rqrec`."""

from rqrec.cli import main

main()
