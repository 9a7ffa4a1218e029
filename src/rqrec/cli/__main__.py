"""`python -m rqrec.cli`."""

from rqrec.cli import main

main()
