"""The arguments and options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simvq_audio.codec import Codec


class PayloadCoding(str, Enum):
    """How ``encode`` packs codes into a file."""

    entropy = "entropy"
    fixed = "fixed"


class AudioFormat(str, Enum):
    """What ``decode`` writes."""

    wav = "wav"
    flac = "flac"


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Model: a file, a folder or a Hugging Face repository. Default: the one built in.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]
BatchSecondsOption = Annotated[
    float,
    typer.Option(
        "--batch-seconds",
        min=1.0,
        help="Seconds of audio per batch. Less needs less memory.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]
StartOption = Annotated[
    float,
    typer.Option(
        "--start", min=0.0, metavar="SECONDS", help="Begin there, without reading all before it."
    ),
]
EndOption = Annotated[
    float | None,
    typer.Option("--end", min=0.0, metavar="SECONDS", help="End there.", show_default=False),
]
StreamOption = Annotated[
    bool,
    typer.Option("--stream", help="Live: packets of codes, each written as soon as it is ready."),
]
RawOption = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="FORMAT",
        help="With --stream: PCM without a header instead of WAV: u8, s16le, s24le, s32le, f32le "
        "or f64le.",
        show_default=False,
    ),
]
RateOption = Annotated[
    int | None,
    typer.Option("--rate", min=1, help="Of --raw samples, in Hz.", show_default=False),
]
ChannelsOption = Annotated[
    int | None,
    typer.Option("--channels", min=1, help="Of --raw samples. Default: 1.", show_default=False),
]
CodebookOption = Annotated[
    int | None,
    typer.Option(
        "--codebook",
        metavar="SIZE",
        help="A smaller codebook, nested in the model's: 4096, 2048, 1024, 512 or 256 entries for "
        "the model built in. Not needed to decode .codes files.",
        show_default=False,
    ),
]
PacketOption = Annotated[
    float,
    typer.Option("--packet-ms", min=1.0, help="With --stream: audio in a packet, in ms."),
]


@dataclass(frozen=True)
class CodingOptions:
    """The options of one ``encode`` or ``decode``.

    Attributes:
        model: a path, a repository id, or None for the embedded model.
        device: where the model runs.
        batch_seconds: seconds of audio in one pass of the model.
        force: overwrite existing files.
        quiet: print errors only.
        as_json: print one JSON object instead of a message.
        coding: how indices are packed, see ``Codes.to_bytes``.
        kbps: bit rate to bring each recording to, or None.
        codebook: entries of the nested codebook to use, or None for the model's own.
    """

    model: str | None
    device: str
    batch_seconds: float
    force: bool
    quiet: bool
    as_json: bool
    coding: str = "entropy"
    kbps: float | None = None
    codebook: int | None = None

    def load_codec(self) -> Codec:
        """Load the model. This is slow, so everything else is checked first.

        Raises:
            ModelError: the model cannot be found or read.
            ConfigError: there is no such device, or no such codebook.
        """
        from simvq_audio.codec import Codec

        codec = Codec.load(self.model, device=self.device, batch_seconds=self.batch_seconds)
        return codec if self.codebook is None else codec.with_codebook(self.codebook)
