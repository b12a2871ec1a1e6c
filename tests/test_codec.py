"""The Python API: shapes, rates, batches, chunks, memory, refusals."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import numpy as np
import pytest
import torch

import simvq_audio
from simvq_audio.codec import Codec
from simvq_audio.errors import AudioError, CodesError, ConfigError, MissingExtraError, ModelError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 22_050, 24_000, 44_100, 192_000])
@pytest.mark.parametrize("shape", [(5000,), (1, 5000), (2, 5000), (8, 777)])
def test_length_rate_and_channels_come_back(codec, sample_rate, shape):
    codes = codec.encode(noise(*shape), sample_rate)
    channels = shape[0] if len(shape) == 2 else 1
    native = -(-shape[-1] * 24_000 // sample_rate)
    assert codes.indices.shape == (channels, -(-native // 320))
    assert (codes.sample_rate, codes.num_samples) == (sample_rate, shape[-1])
    decoded = codec.decode(codes)
    assert decoded.shape == (channels, shape[-1])
    assert decoded.dtype == torch.float32
    assert codec.decode(codes, native_rate=True).shape == (channels, native)


def test_channels_are_coded_each_on_its_own(codec):
    waveform = noise(3, 9000)
    codes = codec.encode(waveform, 24_000)
    decoded = codec.decode(codes)
    for channel in range(3):
        alone = codec.encode(waveform[channel], 24_000)
        assert np.array_equal(alone.indices[0], codes.indices[channel])
        torch.testing.assert_close(codec.decode(alone)[0], decoded[channel], atol=0, rtol=0)


def test_tensors_and_arrays_are_the_same(codec):
    waveform = noise(4000)
    assert codec.encode(torch.from_numpy(waveform), 16_000) == codec.encode(waveform, 16_000)
    assert codec.encode(waveform.astype(np.float64), 16_000) == codec.encode(waveform, 16_000)


def test_bytes_bring_the_codes_back(codec, tmp_path):
    codes = codec.encode(noise(2, 30_000), 44_100)
    assert simvq_audio.Codes.from_bytes(codes.to_bytes()) == codes
    codes.save(tmp_path / "a.codes")
    loaded = simvq_audio.Codes.load(tmp_path / "a.codes")
    assert torch.equal(codec.decode(loaded), codec.decode(codes))


@pytest.mark.parametrize("sample_rate", [16_000, 24_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_chunked_is_whole(codec, model_file, sample_rate, channels):
    waveform = noise(channels, 5 * sample_rate + 123)
    pieces = Codec.load(model_file, device="cpu", batch_seconds=0.7)
    whole = codec.encode(waveform, sample_rate)
    assert pieces.encode(waveform, sample_rate) == whole
    torch.testing.assert_close(pieces.decode(whole), codec.decode(whole), atol=0, rtol=0)


def test_blocks_of_any_size_are_whole(codec):
    waveform = noise(2, 40_000)
    cuts = [0, 1, 1, 500, 20_000, 39_999, 40_000]
    blocks = [waveform[:, a:b].T for a, b in pairwise(cuts)]
    assert codec.encode_stream(blocks, 16_000, 2) == codec.encode(waveform, 16_000)


def test_batch_is_one_by_one(codec):
    shapes = [(16_000,), (1,), (2, 7001), (0,), (24_000,), (1, 320)]
    rates = [16_000, 24_000, 44_100, 16_000, 24_000, 8000]
    waveforms = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    batch = codec.encode_batch(waveforms, rates)
    alone = [codec.encode(waveform, rate) for waveform, rate in zip(waveforms, rates)]
    assert batch == alone
    for together, codes in zip(codec.decode_batch(batch), alone):
        torch.testing.assert_close(together, codec.decode(codes), atol=0, rtol=0)


def test_batches_larger_than_one_pass_are_one_by_one(model_file):
    small = Codec.load(model_file, device="cpu", batch_seconds=1.0)
    waveforms = [noise(length, seed=length) for length in (20_000, 3000, 9000, 30_000, 9001)]
    batch = small.encode_batch(waveforms, 24_000)
    assert batch == [small.encode(waveform, 24_000) for waveform in waveforms]
    for together, codes in zip(small.decode_batch(batch), batch):
        torch.testing.assert_close(together, small.decode(codes), atol=0, rtol=0)


def test_empty_and_one_sample_recordings(codec):
    empty = codec.encode(np.zeros((2, 0), np.float32), 44_100)
    assert (empty.num_frames, empty.num_samples) == (0, 0)
    assert codec.decode(empty).shape == (2, 0)
    one = codec.encode(np.zeros(1, np.float32), 44_100)
    assert (one.num_frames, one.num_samples) == (1, 1)
    assert codec.decode(one).shape == (1, 1)


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.array([0.0, np.nan], np.float32), "nan at sample 1"),
        (np.array([0.0, 0.0, -np.inf], np.float32), "-inf at sample 2"),
        (np.zeros((1, 2, 3), np.float32), "(samples,) or (channels, samples)"),
        (np.zeros(5, np.int16), "floating point"),
        (np.zeros((0, 5), np.float32), "0 channels"),
        (np.zeros((256, 5), np.float32), "256 channels"),
    ],
)
def test_what_cannot_be_coded_is_refused(codec, waveform, words):
    with pytest.raises(AudioError) as caught:
        codec.encode(waveform, 24_000)
    assert words in str(caught.value)


@pytest.mark.parametrize("rate", [0, 999, 10**7, -16_000, 16_000.0, "16000", None])
def test_impossible_rates_are_refused(codec, rate):
    with pytest.raises(AudioError):
        codec.encode(noise(100), rate)
    for rates in (rate, [16_000, rate]):
        with pytest.raises(AudioError):
            codec.encode_batch([noise(100), noise(200)], rates)


@pytest.mark.parametrize("channels", [0, 256])
def test_batches_refuse_impossible_channels(codec, channels):
    with pytest.raises(AudioError, match=f"{channels} channels"):
        codec.encode_batch([noise(100), noise(channels, 100)], 16_000)


def test_rates_may_be_numpy_integers(codec):
    waveform = noise(4000)
    expected = codec.encode(waveform, 16_000)
    assert codec.encode(waveform, np.int64(16_000)) == expected
    assert codec.encode_batch([waveform] * 2, np.int64(16_000)) == [expected] * 2
    assert codec.encode_batch([waveform] * 2, np.array([16_000] * 2)) == [expected] * 2


def altered(codes, **fields):
    values = {
        "indices": codes.indices,
        "codebook_size": codes.codebook_size,
        "codes_id": codes.codes_id,
        "sample_rate": codes.sample_rate,
        "num_samples": codes.num_samples,
    }
    return simvq_audio.Codes(**{**values, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"codes_id": "0123456789ab"}, "these codes are 0123456789ab"),
        ({"codebook_size": 1024}, "codebook of 1024 entries"),
        ({"num_samples": 2**40 - 1}, "the codes have 16"),
        ({"num_samples": 4800}, "make 15 frames"),
        ({"sample_rate": 2**24 - 1}, "sample rate"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codec, fields, words):
    codes = codec.encode(noise(5000), 24_000)
    with pytest.raises(CodesError) as caught:
        codec.decode(altered(codes, **fields))
    assert words in str(caught.value)
    # At once, and not when the first block is asked for.
    with pytest.raises(CodesError):
        codec.decode_stream(altered(codes, **fields))
    with pytest.raises(ValueError, match="codes"):
        codec.decode_batch([codes, altered(codes, **fields)])


def test_bare_indices_make_codes(codec):
    codes = codec.encode(noise(2, 6400), 24_000)
    again = codec.codes_from_indices(codes.indices.tolist())
    assert torch.equal(codec.decode(again), codec.decode(codes))
    for bad in ([[512]], [[-1]], [[[0]]], [0.5]):
        with pytest.raises(CodesError):
            codec.codes_from_indices(bad)


def test_files_in_and_out(codec, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "in.wav", noise(9000, 2), 44_100)
    codes = codec.encode_file(tmp_path / "in.wav")
    codec.decode_file(codes, tmp_path / "out.flac")
    read, rate = soundfile.read(tmp_path / "out.flac", dtype="float32")
    assert (read.shape, rate) == ((9000, 2), 44_100)
    np.testing.assert_allclose(read.T, codec.decode(codes).clamp(-1, 1), atol=1 / 32000)


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu", "unknown device"), ("cuda:99", "there is no cuda:99"), ("meta", "unknown device")],
)
def test_devices_that_are_not_there(model_file, device, words):
    with pytest.raises(ConfigError) as caught:
        Codec.load(model_file, device=device)
    assert words in str(caught.value)


def test_models_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no model file"):
        Codec.load(tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match="no embedded model is called 'enormous'"):
        Codec.load("enormous")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"simvq-audio\[hub\]"):
        Codec.load("someone/some-codec")


def test_a_folder_with_a_model_is_a_model(codec, model_file, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(model_file.read_bytes())
    assert Codec.load(tmp_path, device="cpu").codes_id == codec.codes_id


class _Hub(BaseHTTPRequestHandler):
    """The part of the Hugging Face hub that serves ``model.safetensors`` of one repository."""

    def do_HEAD(self):
        content = self.server.content
        if self.path != "/someone/some-codec/resolve/main/model.safetensors":
            self.send_response(404)
            self.send_header("X-Error-Code", self.server.refusals[self.path.split("/")[2]])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return True

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.server.content)

    def log_message(self, *arguments):
        pass


def test_a_hub_repository_is_fetched_once(codec, model_file, tmp_path):
    pytest.importorskip("huggingface_hub")
    script = """
import sys, time
time.sleep = lambda seconds: None  # the hub's package waits longer before each new try
from simvq_audio.codec import Codec
from simvq_audio.errors import ModelError
for line in sys.stdin:
    try:
        print(Codec.load(line.strip(), device="cpu").codes_id, flush=True)
    except ModelError as error:
        print(error, flush=True)
"""

    def load(*repositories):
        process.stdin.write("".join(f"{name}\n" for name in repositories))
        process.stdin.flush()
        return [process.stdout.readline().strip() for _ in repositories]

    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        server.content = model_file.read_bytes()
        server.refusals = {"no-codec": "RepoNotFound", "no-model": "EntryNotFound"}
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # The hub's package reads its settings once, when it is imported.
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found, *refused = load("someone/some-codec", "someone/no-codec", "someone/no-model")
        server.shutdown()
    assert found == codec.codes_id
    assert refused == [
        "there is no file and no Hugging Face repository someone/no-codec that you have access to; "
        "if it is private, log in with: hf auth login",
        "the Hugging Face repository someone/no-model holds no model.safetensors",
    ]
    # Nobody answers any more: what was fetched is still there, what was not is one line.
    found, refused = load("someone/some-codec", "someone/other-codec")
    process.communicate()
    assert process.returncode == 0
    assert found == codec.codes_id
    assert "cannot get model.safetensors of the repository someone/other-codec" in refused


def test_memory_does_not_grow_with_the_recording(model_file):
    """Peak memory of coding 15 minutes is that of coding one, but for the codes themselves."""
    script = """
import resource, sys
import numpy as np, torch
from simvq_audio.codec import Codec
torch.set_num_threads(1)
codec = Codec.load(sys.argv[1], device="cpu", batch_seconds=10)
def minutes(count):
    rng = np.random.default_rng(0)
    block = rng.standard_normal((16000, 1)).astype(np.float32)
    codes = codec.encode_stream((block for _ in range(60 * count)), 16000, 1)
    total = sum(len(piece) for piece in codec.decode_stream(codes))
    assert total == 60 * count * 16000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = minutes(1)
print(minutes(15) - first)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(model_file)], capture_output=True, check=True, text=True
    )
    # KiB; the 15 minutes alone would take 82 MiB as float32 at the model's rate.
    assert int(done.stdout) < 50 * 1024


def test_recurrent_encoder_gives_the_same_codes_in_pieces(published_file):
    whole, pieces = (Codec.load(published_file, device="cpu", batch_seconds=s) for s in (30.0, 0.5))
    waveform = noise(2, 60_001)
    codes = whole.encode(waveform, 24_000)
    assert pieces.encode(waveform, 24_000) == codes
    assert len(np.unique(codes.indices)) > 8
    # Its decoder sees the whole utterance: in pieces the samples differ, their number does not.
    assert pieces.decode(codes).shape == whole.decode(codes).shape == (2, 60_001)
    assert not torch.equal(pieces.decode(codes), whole.decode(codes))


def test_batches_of_the_published_kind_are_one_by_one(published_file):
    codec = Codec.load(published_file, device="cpu")
    waveforms = [noise(length, seed=length) for length in (9000, 3000, 24_001)]
    batch = codec.encode_batch(waveforms, 24_000)
    assert batch == [codec.encode(waveform, 24_000) for waveform in waveforms]
    for together, codes in zip(codec.decode_batch(batch), batch):
        torch.testing.assert_close(together, codec.decode(codes), atol=0, rtol=0)
