"""`python run_rqvae.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec run-rqvae`."""

import sys

from rqrec.cli import app

if __name__ == "__main__":
    app(["run-rqvae", *sys.argv[1:]], prog_name="run_rqvae.py")
