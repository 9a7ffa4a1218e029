"""`python train_rqvae.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec train-rqvae`."""

import sys

from rqrec.cli import main

if __name__ == "__main__":
    main(["train-rqvae", *sys.argv[1:]], "train_rqvae.py")
