"""Turn a run's model into the file that ships: ``simvq-audio export``.

python recipes/export.py RUN/model.safetensors OUT --description TEXT --licence TEXT
"""

import sys

from simvq_audio.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
