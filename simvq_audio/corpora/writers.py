"""Shards of rows: Parquet, WebDataset, Lhotse Shar. Each appears whole or not at all."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from simvq_audio.codec import Codec
from simvq_audio.corpora.records import Row, code_dtype
from simvq_audio.errors import needs_extra


class ShardWriter(ABC):
    """Writes the rows of a part.

    Args:
        folder: exists.
        codec: that made the codes.
        columns: of the corpus, see ``Corpus.columns``.

    Raises:
        MissingExtraError: a package is missing.
    """

    def __init__(self, folder: Path, codec: Codec, columns: dict[str, str]) -> None:
        self.folder = folder
        self.place = folder / self.subfolder
        self.codes_id = codec.codes_id
        self.columns = columns
        self.frame_rate = codec.frame_rate
        self.dtype = code_dtype(codec.codebook_size)
        self.facts = {
            "codes_id": codec.codes_id,
            "codebook_size": codec.codebook_size,
            "frame_rate": codec.frame_rate,
            "sample_rate": codec.sample_rate,
            "hop_length": codec.hop_length,
        }

    # Of the output folder, where the shards are.
    subfolder = ""

    @abstractmethod
    def names(self, part: int) -> list[str]:
        """The files of a shard."""

    @abstractmethod
    def build(self, part: int, rows: Sequence[Row], folder: Path) -> None:
        """Write these files into another folder."""

    def write(self, part: int, rows: Sequence[Row]) -> None:
        """Write a shard, replacing an existing one.

        Raises:
            OSError: it cannot be written.
        """
        self.place.mkdir(exist_ok=True)
        # In the same file system. Leftovers of a killed run are removed when its part is redone.
        with TemporaryDirectory(dir=self.folder / WORK_FOLDER, prefix=f"part-{part:06d}-") as made:
            self.build(part, rows, Path(made))
            for name in self.names(part):
                _sync(Path(made, name))
                os.replace(Path(made, name), self.place / name)

    def plain(self, row: Row) -> dict[str, Any]:
        """Everything about a recording except its codes."""
        return {
            "id": row.id,
            "samples": row.samples,
            "rate": row.rate,
            "codes_id": self.codes_id,
            **{name: row.columns.get(name) for name in self.columns},
        }


# Readers of data sets skip names that begin with an underscore.
WORK_FOLDER = "_tokenize"


def _sync(path: Path) -> None:
    """Flush a file to the disk, so that no shard is empty after a power failure."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


class ParquetWriter(ShardWriter):
    """``part-000000.parquet``: id, codes, channels, samples, rate, codes_id, and the corpus's own.

    ``codes`` is a list of uint16, or uint32 for codebooks above 65 536; of several channels or
    codebooks one after the other: ``reshape(channels, frames)`` or
    ``reshape(channels, codebooks, frames)``. The metadata of the schema has the model's numbers.
    """

    def __init__(self, folder: Path, codec: Codec, columns: dict[str, str]) -> None:
        super().__init__(folder, codec, columns)
        with needs_extra("corpora"):
            import pyarrow as pa
            import pyarrow.parquet
        kinds = {
            "bool": pa.bool_(),
            "int64": pa.int64(),
            "double": pa.float64(),
            "string": pa.string(),
        }
        self._schema = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("codes", pa.list_(pa.from_numpy_dtype(self.dtype)), nullable=False),
                pa.field("channels", pa.int32(), nullable=False),
                pa.field("samples", pa.int64(), nullable=False),
                pa.field("rate", pa.int32(), nullable=False),
                pa.field("codes_id", pa.string(), nullable=False),
                *(pa.field(name, kinds[kind]) for name, kind in columns.items()),
            ],
            {f"simvq_audio.{key}": json.dumps(value) for key, value in self.facts.items()},
        )

    def names(self, part: int) -> list[str]:
        return [f"part-{part:06d}.parquet"]

    def build(self, part: int, rows: Sequence[Row], folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = [row.codes.reshape(-1) for row in rows]
        ends = np.cumsum([0, *map(len, flat)])
        values = np.concatenate([np.empty(0, self.dtype), *flat])
        plain = [self.plain(row) for row in rows]
        columns: dict[str, Any] = {
            "codes": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values)),
            "channels": [len(row.codes) for row in rows],
        }
        arrays = [
            columns[field.name]
            if field.name == "codes"
            else pa.array(
                columns.get(field.name) or [each[field.name] for each in plain], field.type
            )
            for field in self._schema
        ]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        pq.write_table(table, folder / self.names(part)[0], compression="zstd")


class WebDatasetWriter(ShardWriter):
    """``part-000000.tar``: per recording ``.npy`` with its codes and ``.json`` with the rest.

    The array is (frames,) of one channel, (channels, frames) of several. Keys are ids, with "_" for
    the dots of names, since WebDataset ends a key at a dot.
    """

    def __init__(self, folder: Path, codec: Codec, columns: dict[str, str]) -> None:
        super().__init__(folder, codec, columns)
        with needs_extra("corpora"):
            import webdataset  # noqa: F401

    def names(self, part: int) -> list[str]:
        return [f"part-{part:06d}.tar"]

    def build(self, part: int, rows: Sequence[Row], folder: Path) -> None:
        import webdataset

        taken: set[str] = set()
        with webdataset.TarWriter(
            str(folder / self.names(part)[0]), encoder=True, mtime=0, format="PAX_FORMAT"
        ) as tar:
            for number, row in enumerate(rows):
                head, slash, name = row.id.strip("/").rpartition("/")
                key = head + slash + name.replace(".", "_")
                if key in taken or not name:
                    key = f"{key}-{number}"
                taken.add(key)
                codes = row.codes[0] if len(row.codes) == 1 else row.codes
                tar.write({"__key__": key, "npy": codes, "json": self.plain(row)})


class SharWriter(ShardWriter):
    """Lhotse Shar: ``shar/cuts.000000.jsonl.gz`` and ``shar/codes.000000.tar``.

    They have a folder of their own, since lhotse takes all files of a folder for fields. Each cut
    lasts whole frames and has a temporal array ``codes``, (frames,) or (channels, frames); what is
    known of the recording is in ``custom``.
    """

    subfolder = "shar"

    def __init__(self, folder: Path, codec: Codec, columns: dict[str, str]) -> None:
        super().__init__(folder, codec, columns)
        with needs_extra("corpora"):
            import lhotse.shar  # noqa: F401

    def names(self, part: int) -> list[str]:
        return [f"codes.{part:06d}.tar", f"cuts.{part:06d}.jsonl.gz"]

    def build(self, part: int, rows: Sequence[Row], folder: Path) -> None:
        from lhotse import MonoCut, MultiCut
        from lhotse.shar import SharWriter as LhotseWriter

        with LhotseWriter(
            str(folder), {"codes": "numpy"}, shard_size=len(rows) + 1, shard_offset=part
        ) as shar:
            for row in rows:
                one = len(row.codes) == 1
                # Lhotse cuts arrays to the duration, so the last frame must be a whole one.
                duration = row.codes.shape[-1] / self.frame_rate
                place: dict[str, Any] = {"id": row.id, "start": 0.0, "duration": duration}
                custom = {key: value for key, value in self.plain(row).items() if key != "id"}
                if one:
                    cut = MonoCut(**place, channel=0, custom=custom)
                else:
                    cut = MultiCut(**place, channel=list(range(len(row.codes))), custom=custom)
                codes = row.codes[0] if one else row.codes
                shar.write(
                    cut.attach_tensor(
                        "codes", codes, frame_shift=1 / self.frame_rate, temporal_dim=codes.ndim - 1
                    )
                )


WRITERS: dict[str, type[ShardWriter]] = {
    "parquet": ParquetWriter,
    "webdataset": WebDatasetWriter,
    "shar": SharWriter,
}
