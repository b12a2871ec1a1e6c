"""Write manifests for a folder or a .tar archive of audio: ``simvq-audio data folder``.

python data_prep/folder.py SOURCE OUT [--dev-share 0.05] [--speaker-from REGEX] [--seed 0]
"""

import sys

from simvq_audio.cli import main

if __name__ == "__main__":
    main(["data", "folder", *sys.argv[1:]])
