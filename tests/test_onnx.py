"""ONNX graphs and the codec without torch: the codes and samples of the codec with torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")

from simvq_audio import Codec, Codes  # noqa: E402
from simvq_audio.audio import read_audio  # noqa: E402
from simvq_audio.cli import main  # noqa: E402
from simvq_audio.errors import AudioError, CodesError, ModelError  # noqa: E402
from simvq_audio.onnx import Codec as OnnxCodec  # noqa: E402
from simvq_audio.onnx.check import compare  # noqa: E402
from simvq_audio.onnx.model import convert  # noqa: E402
from simvq_audio.onnx.protobuf import OPSET  # noqa: E402

HELLO = Path(__file__).parents[1] / "examples" / "hello.wav"
# What browsers and phones lack, or compute differently.
UNWANTED = {"STFT", "DFT", "HannWindow", "Loop", "Scan", "If"}


@pytest.fixture(scope="module")
def onnx_codec(model_file) -> OnnxCodec:
    return OnnxCodec.load(model_file, threads=1)


def noise(*shape: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def check_equal(codec: Codec, onnx_codec: OnnxCodec, waveform: np.ndarray, rate: int) -> None:
    expected = codec.encode(waveform, rate)
    assert onnx_codec.encode(waveform, rate) == expected
    decoded = onnx_codec.decode(expected)
    assert decoded.shape == np.atleast_2d(waveform).shape
    np.testing.assert_allclose(decoded, codec.decode(expected).numpy(), atol=1e-4)


def test_graphs_are_valid_and_of_common_operators(model_file):
    onnx = pytest.importorskip("onnx")
    for data in convert(model_file)[1].values():
        graph = onnx.load_from_string(data)
        onnx.checker.check_model(graph, full_check=True)
        assert {node.op_type for node in graph.graph.node}.isdisjoint(UNWANTED)
        assert {(entry.domain, entry.version) for entry in graph.opset_import} == {("", OPSET)}
        for value in (*graph.graph.input, *graph.graph.output):
            dims = value.type.tensor_type.shape.dim
            assert all(dim.dim_param and not dim.dim_value for dim in dims[:2])


@pytest.mark.parametrize("samples", [0, 1, 320, 321, 959, 30_000])
def test_codes_and_samples_are_those_of_torch(codec, onnx_codec, samples):
    check_equal(codec, onnx_codec, noise(samples), 24_000)


def test_channels_and_other_rates(codec, onnx_codec):
    check_equal(codec, onnx_codec, noise(2, 16_000), 44_100)


def test_pieces_equal_the_whole(model_file, onnx_codec):
    pieces = OnnxCodec.load(model_file, threads=1, batch_seconds=0.2)
    waveform = noise(50_000)
    codes = onnx_codec.encode(waveform, 24_000)
    assert pieces.encode(waveform, 24_000) == codes
    np.testing.assert_allclose(pieces.decode(codes), onnx_codec.decode(codes), atol=1e-5)


def test_the_embedded_model(tmp_path):
    reference, exported = Codec.load(device="cpu"), OnnxCodec.load(threads=2)
    result = compare(reference, exported, [HELLO])
    assert result.codes == 609 and result.differing == 0
    assert exported.codes_id == reference.codes_id
    # Files of older versions name the same codes differently.
    old = Codes(np.arange(75), 8192, "ef3e61a1305e", 24_000, 24_000)
    assert exported.decode(old).shape == (1, 24_000)


def test_codes_of_a_nested_codebook():
    nested = Codec.load(device="cpu").with_codebook(1024)
    waveform, rate = read_audio(HELLO)
    codes = nested.encode(waveform[:, :rate], rate)
    decoded = OnnxCodec.load(threads=1).decode(codes)
    np.testing.assert_allclose(decoded, nested.decode(codes).numpy(), atol=1e-4)


def test_what_cannot_be_coded_is_refused(onnx_codec):
    with pytest.raises(AudioError, match="holds nan"):
        onnx_codec.encode(np.full(100, np.nan, np.float32), 24_000)
    with pytest.raises(AudioError, match="channels"):
        onnx_codec.encode(np.zeros((0, 100), np.float32), 24_000)
    with pytest.raises(CodesError, match="these codes are"):
        onnx_codec.decode(Codes(np.zeros(3, int), 512, "0123456789ab", 24_000, 960))
    with pytest.raises(CodesError, match="make 4 frames"):
        onnx_codec.decode(Codes(np.zeros(3, int), 512, onnx_codec.codes_id, 24_000, 1280))


def test_a_wrong_graph_is_noticed(codec, model_file):
    description, graphs = convert(model_file)
    data = bytearray(graphs["decoder.onnx"])
    # The largest constants are weights in float16 or the codebook: change a stretch of them.
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    graphs["decoder.onnx"] = bytes(data)
    with pytest.raises(ModelError, match="do not compute"):
        compare(codec, OnnxCodec(description, graphs, threads=1))


# -- the command --------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_export_writes_a_folder_that_loads(codec, model_file, tmp_path, capsys):
    folder = tmp_path / "exported"
    assert run("export", model_file, folder, "--onnx", "--check", HELLO) == 0
    assert "0 of 609 codes differ" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "codec.json",
        "decoder.onnx",
        "encoder.onnx",
    ]
    described = json.loads((folder / "codec.json").read_text())
    assert described["codes_id"] == codec.codes_id and described["opset"] == OPSET
    check_equal(codec, OnnxCodec.load(folder, threads=1), noise(2000), 24_000)

    before = (folder / "encoder.onnx").stat().st_mtime_ns
    assert run("export", model_file, folder, "--onnx") == 1
    assert "--force" in capsys.readouterr().err
    assert (folder / "encoder.onnx").stat().st_mtime_ns == before
    (folder / "codec.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        OnnxCodec.load(folder)


def test_models_without_a_graph_are_named(published_file, tmp_path, capsys):
    assert run("export", published_file, tmp_path / "out", "--onnx") == 1
    assert "encoder of the kind seanet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-9], lambda data: data[:4], lambda data: data[:-8] + bytes(8)]
)
def test_damaged_model_files_are_refused(model_file, tmp_path, change):
    path = tmp_path / "model.safetensors"
    path.write_bytes(change(model_file.read_bytes()))
    with pytest.raises(ModelError, match="damaged"):
        OnnxCodec.load(path)


def test_missing_models_are_named(tmp_path):
    with pytest.raises(ModelError, match="there is no model"):
        OnnxCodec.load(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="holds neither"):
        OnnxCodec.load(tmp_path)


# -- without torch ------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not to be had here")

sys.meta_path.insert(0, Block())
from simvq_audio import Codes
from simvq_audio.onnx import Codec

codec = Codec.load(threads=1)
codes = codec.encode_file({hello!r})
codes.save({out!r} + ".codes")
assert Codes.load({out!r} + ".codes") == codes
codec.decode_file(codes, {out!r} + ".wav")
"""


def test_torch_is_not_needed_nor_most_other_packages(tmp_path):
    import soundfile

    blocked = {"torch", "safetensors", "pydantic", "typer", "rich", "scipy", "onnx", "librosa"}
    script = WITHOUT_TORCH.format(blocked=blocked, hello=str(HELLO), out=str(tmp_path / "hello"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Entropy-coded, byte for byte as with torch.
    codec = Codec.load(device="cpu")
    assert (tmp_path / "hello.codes").read_bytes() == codec.encode_file(HELLO).to_bytes()
    assert soundfile.info(tmp_path / "hello.wav").frames == soundfile.info(HELLO).frames
