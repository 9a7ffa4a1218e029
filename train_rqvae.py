"""`python train_rqvae.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec train-rqvae`."""

import sys

from rqrec.cli import app

if __name__ == "__main__":
    app(["train-rqvae", *sys.argv[1:]], prog_name="train_rqvae.py")
