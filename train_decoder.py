"""`python train_decoder.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec train-decoder`."""

import sys

from rqrec.cli import app

if __name__ == "__main__":
    app(["train-decoder", *sys.argv[1:]], prog_name="train_decoder.py")
