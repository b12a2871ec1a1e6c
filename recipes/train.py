"""Train a model: ``simvq-audio train``.

python recipes/train.py CONFIG --data DATA --out RUN [--resume | --init MODEL] [--dev DEV]
torchrun --nproc-per-node 8 recipes/train.py CONFIG --data DATA --out RUN
"""

import sys

from simvq_audio.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
