"""Turn a run's model into the file that ships: half precision, with its description and licence.

python recipes/export.py RUN/model.safetensors OUT --description TEXT --licence TEXT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simvq_audio.errors import SimvqAudioError
from simvq_audio.model.storage import load_model, save_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--description", required=True)
    parser.add_argument("--licence", required=True)
    args = parser.parse_args()
    try:
        model, header = load_model(args.model)
        metadata = {
            **header.metadata,
            "description": args.description,
            "licence": args.licence,
        }
        model_id = save_model(args.out, header.config, model.state_dict(), metadata, half=True)
    except (SimvqAudioError, OSError) as error:
        print(f"export.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: model {model_id}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
