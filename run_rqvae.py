"""`python run_rqvae.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec run-rqvae`."""

import sys

from rqrec.cli import main

if __name__ == "__main__":
    main(["run-rqvae", *sys.argv[1:]], "run_rqvae.py")
