"""``docs/file-format.md`` stays true: its example decodes, its table is the layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from simvq_audio.bitstream import HEADER_BYTES, TRAILER_BYTES, Codes
from simvq_audio.bitstream.framed import (
    MAX_BODY_BYTES,
    PACKET_HEADER_BYTES,
    PACKET_OVERHEAD_BYTES,
    PacketWriter,
    StreamHead,
)
from simvq_audio.prior import prior_for_codes

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


def example_rows(language: str = "hex") -> list[bytes]:
    """The bytes of each line of the example; remarks follow two or more spaces."""
    lines = block(language).splitlines()
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


def test_the_example_of_coding_1() -> None:
    data = b"".join(example_rows("hex-entropy"))
    codes = Codes.from_bytes(data)
    (listed,) = re.findall(r"^ +codes: ([\d ]+)$", DOC, re.MULTILINE)
    assert codes.indices.tolist() == [[int(index) for index in listed.split()]]
    assert codes.to_bytes() == data
    fixed = len(codes.to_bytes("fixed"))
    assert f"The whole file, {len(data)} bytes instead of {fixed} at fixed width" in DOC


def test_the_first_symbol_in_the_text() -> None:
    data = b"".join(example_rows("hex-entropy"))
    text = " ".join(DOC.split())
    state = int.from_bytes(data[36:40], "big")
    assert f"The state is {state}, its slot {state % 65536}." in text
    (found,) = re.findall(
        r"cluster (\d+) has start (\d+) and frequency (\d+)\. The state becomes "
        r"(\d+) \* (\d+) \+ (\d+) - (\d+) = (\d+)",
        text,
    )
    cluster, start, frequency, *formula, after = map(int, found)
    assert formula == [frequency, state // 65536, state % 65536, start]
    assert after == frequency * (state // 65536) + state % 65536 - start
    prior = prior_for_codes("c153ae81d324")
    assert prior is not None
    starts, frequencies = prior.intervals(Codes.from_bytes(data).indices[:, :1])
    assert (starts[0, 0, 0], frequencies[0, 0, 0]) == (start, frequency)
    member = int(np.argwhere(prior.tree == Codes.from_bytes(data).indices[0, 0])[0, 1])
    assert f"`tree[{cluster}, {member}]` is {Codes.from_bytes(data).indices[0, 0]}" in text


def test_the_example_of_a_stream() -> None:
    writer = PacketWriter(StreamHead(2, EXAMPLE.codes_id, 16_000, (1000,)))
    made = writer.head() + writer.frames(EXAMPLE.indices) + writer.end(960)
    assert b"".join(example_rows("hex-stream")) == made
    # The offsets in the table follow from its sizes.
    sizes = re.findall(r"^\| \+(\d+) \| (\d+) \| [a-z -]+ \| ", DOC, re.MULTILINE)
    ends = [(int(offset), int(offset) + int(size)) for offset, size in sizes][-7:]
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == PACKET_HEADER_BYTES
    assert f"at most {MAX_BODY_BYTES + PACKET_OVERHEAD_BYTES} bytes" in DOC
    overhead = len(writer.frames(EXAMPLE.indices[:, :1])) - 3
    assert f"A packet of frames has {overhead} bytes in addition to its payload" in " ".join(
        DOC.split()
    )
