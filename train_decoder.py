"""`python train_decoder.py CONFIG.gin [--gin "name=value"]`: the same as `rqrec train-decoder`."""

import sys

from rqrec.cli import main

if __name__ == "__main__":
    main(["train-decoder", *sys.argv[1:]], "train_decoder.py")
