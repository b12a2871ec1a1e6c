"""``docs/file-format.md`` stays true: its example decodes, its table is the layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from simvq_audio.bitstream import HEADER_BYTES, TRAILER_BYTES, Codes

DOC = (Path(__file__).parents[2] / "docs" / "file-format.md").read_text(encoding="utf-8")

EXAMPLE = Codes(
    indices=np.array([[1, 500, 999], [7, 64, 0]]),
    codebook_size=1000,
    codes_id="0123456789ab",
    sample_rate=16000,
    num_samples=960,
)


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)
    return text


def example_rows() -> list[bytes]:
    """The bytes of each line of the example; the remark stands behind two or more spaces."""
    lines = block("hex").splitlines()
    return [bytes.fromhex(re.split(r" {2,}", line)[0]) for line in lines]


def header_table() -> list[tuple[int, int]]:
    """Offset and size of each header field."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", DOC, re.MULTILINE)
    return [(int(offset), int(size)) for offset, size in rows]


def test_the_example_decodes() -> None:
    data = b"".join(example_rows())
    assert f"The whole file, {len(data)} bytes" in DOC
    assert Codes.from_bytes(data) == EXAMPLE
    assert EXAMPLE.to_bytes() == data


def test_the_indices_in_the_text() -> None:
    rows = re.findall(r"^ +channel \d: +([\d ]+)$", DOC, re.MULTILINE)
    assert [[int(index) for index in row.split()] for row in rows] == EXAMPLE.indices.tolist()


def test_the_bits_are_the_payload() -> None:
    groups = block("bits").split()
    assert [int(group, 2) for group in groups[:-1]] == EXAMPLE.indices.reshape(-1).tolist()
    text = "".join(groups)
    payload = EXAMPLE.to_bytes()[HEADER_BYTES:-TRAILER_BYTES]
    assert int(text, 2).to_bytes(len(text) // 8, "big") == payload


def test_the_table_is_the_layout() -> None:
    table = header_table()
    end = 0
    for offset, size in table:
        assert offset == end
        end += size
    assert end == HEADER_BYTES
    # The example has one line per field, then payload and CRC.
    assert [size for _, size in table] == [len(row) for row in example_rows()[:-2]]


def test_the_ten_second_example() -> None:
    codes = Codes(np.zeros(750, np.int32), 8192, "0123456789ab", 24000, 240_000)
    size = len(codes.to_bytes())
    assert f"the file has {size} bytes" in DOC
    payload_size = size - HEADER_BYTES - TRAILER_BYTES
    assert f"{codes.payload_bits} bits, or {payload_size} bytes" in DOC
    assert f"= {codes.payload_bitrate:.0f} bit/s" in DOC
