"""Write manifests for LibriTTS, downloading it first if necessary: ``simvq-audio data libritts``.

python data_prep/libritts.py OUT [--root FOLDER] [--subsets train-clean-100,dev-clean]
"""

import sys

from simvq_audio.cli import main

if __name__ == "__main__":
    main(["data", "libritts", *sys.argv[1:]])
