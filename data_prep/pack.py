"""Pack the recordings of a manifest for fast training: ``simvq-audio data pack``.

python data_prep/pack.py MANIFEST OUT [--sample-rate 24000] [--jobs N]
"""

import sys

from simvq_audio.cli import main

if __name__ == "__main__":
    main(["data", "pack", *sys.argv[1:]])
