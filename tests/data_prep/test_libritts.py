from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prepare_commands import program

from simvq_audio.training.download import DownloadError, download, unpack_folder
from simvq_audio.training.manifest import load_manifest
from simvq_audio.training.prepare import LIBRITTS_SUBSETS, libritts_archives

libritts = program("data", "libritts")


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_existing_tree(libritts_tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert libritts.main([str(out), "--root", str(libritts_tree)]) == 0
    dev = _rows(out / "dev-clean.jsonl")
    assert [row["duration"] for row in dev] == [0.5, 1.5]
    assert {row["speaker"] for row in dev} == {"84"}
    assert {row["subset"] for row in dev} == {"dev-clean"}
    assert {row["sample_rate"] for row in dev} == {24_000}
    train = _rows(out / "train.jsonl")
    assert [row["speaker"] for row in train] == ["103", "1034"]
    assert train == _rows(out / "train-clean-100.jsonl")
    assert not (out / "test-clean.jsonl").exists()
    captured = capsys.readouterr()
    assert "2 recordings, 0.00 hours, 2 speakers, 24000 Hz (2)" in captured.out
    assert "103_1240_000000_000002.wav: is not audio" in captured.err
    assert "1 unreadable recordings skipped" in captured.err


def test_folder_above_or_libritts_itself(libritts_tree, tmp_path):
    for root in (libritts_tree, libritts_tree / "LibriTTS"):
        out = tmp_path / f"out-{root.name}"
        assert libritts.main([str(out), "--root", str(root), "--subsets", "dev-clean"]) == 0
        assert len(load_manifest(out / "dev-clean.jsonl")) == 2


def test_missing_subset_is_one_line(libritts_tree, tmp_path, capsys):
    arguments = [str(tmp_path / "out"), "--root", str(libritts_tree), "--subsets", "test-other"]
    assert libritts.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("simvq-audio: error: ") and "holds no test-other" in error
    assert error.count("\n") == 1


def test_archives_are_the_seven_with_checksums():
    pytest.importorskip("torchaudio")
    table = libritts_archives()
    assert set(table) == set(LIBRITTS_SUBSETS) and len(table) == 7
    for subset, (url, sha256) in table.items():
        assert url.endswith(f"/{subset}.tar.gz") and len(sha256) == 64


class _Server(ThreadingHTTPServer):
    """Serves one file; can break off in the middle, and can refuse to go on in the middle."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.break_after: int | None = None
        self.resumes = True
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.tar.gz"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted and self.server.resumes else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = _Server(bytes(range(256)) * 40)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _ignore(done, total):
    pass


def test_download_goes_on_where_it_broke_off(server, tmp_path):
    target = tmp_path / "file.tar.gz"
    digest = hashlib.sha256(server.content).hexdigest()
    server.break_after = 5000
    with pytest.raises(DownloadError, match=r"broke off.*run the command again"):
        download(server.url, target, digest, _ignore)
    assert not target.exists()
    server.break_after = None
    seen = []
    download(server.url, target, digest, lambda *progress: seen.append(progress))
    assert target.read_bytes() == server.content
    assert server.ranges == [None, "bytes=5000-"]
    assert seen[-1] == (len(server.content), len(server.content))
    download(server.url, target, digest, _ignore)
    assert len(server.ranges) == 2, "a complete file is not asked for again"


def test_download_starts_over_where_the_server_cannot_go_on(server, tmp_path):
    target = tmp_path / "file.tar.gz"
    (tmp_path / "file.tar.gz.part").write_bytes(server.content[:100])
    server.resumes = False
    download(server.url, target, hashlib.sha256(server.content).hexdigest(), _ignore)
    assert target.read_bytes() == server.content


def test_download_with_a_complete_part(server, tmp_path):
    target = tmp_path / "file.tar.gz"
    (tmp_path / "file.tar.gz.part").write_bytes(server.content)
    download(server.url, target, hashlib.sha256(server.content).hexdigest(), _ignore)
    assert target.read_bytes() == server.content


def test_download_with_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match="checksum"):
        download(server.url, tmp_path / "file.tar.gz", "0" * 64, _ignore)
    assert list(tmp_path.iterdir()) == []


def test_download_from_nowhere(tmp_path):
    with pytest.raises(DownloadError, match="cannot download"):
        download((tmp_path / "none").as_uri(), tmp_path / "x", "0" * 64, _ignore)


def test_downloads_unpacks_and_lists(libritts_tree, tmp_path, server, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(libritts_tree / "LibriTTS", "LibriTTS")
    server.content = packed.getvalue()
    digest = hashlib.sha256(server.content).hexdigest()
    archives = {"dev-clean": (server.url, digest)}
    monkeypatch.setattr("simvq_audio.training.prepare.libritts_archives", lambda: archives)
    out = tmp_path / "out"
    for _ in range(2):
        assert libritts.main([str(out), "--subsets", "dev-clean"]) == 0
        rows = _rows(out / "dev-clean.jsonl")
        assert rows[0]["path"] == ("LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav"), (
            "relative, so that the folder can be moved"
        )
    assert len(server.ranges) == 1
    assert sorted(path.name for path in (out / "LibriTTS").iterdir()) == ["dev-clean"]


def test_damaged_archive_leaves_no_folder(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(f"LibriTTS/dev-clean/{name}.wav")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(bytes(range(250)) * 400))
    archive = tmp_path / "dev-clean.tar.gz"
    archive.write_bytes(packed.getvalue()[:-300])
    with pytest.raises(DownloadError, match="damaged"):
        unpack_folder(archive, "LibriTTS/dev-clean", tmp_path / "out" / "dev-clean")
    assert list((tmp_path / "out").iterdir()) == []
