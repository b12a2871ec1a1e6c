"""The page in a real browser: what it codes is what the command line codes."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
import soundfile

from simvq_audio import Codec, Codes
from simvq_audio.audio import read_audio, resample
from simvq_audio.cli import main
from simvq_audio.demo import runtime
from simvq_audio.demo.server import make_server
from simvq_audio.errors import MissingExtraError, ModelError

HELLO = Path(__file__).parents[1] / "examples" / "hello.wav"
ARGUMENTS = (
    # No other host exists: everything works without a network.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # A microphone that beeps, and nobody to be asked for it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
FETCH = """
const [selector, attribute, done] = arguments;
fetch(document.querySelector(selector)[attribute])
  .then((response) => response.arrayBuffer())
  .then((buffer) => done(btoa(Array.from(new Uint8Array(buffer), (b) =>
    String.fromCharCode(b)).join(""))))
  .catch((error) => done(`failed: ${error}`));
"""


class Page:
    """The page, and what its visitor does and sees."""

    def __init__(self, driver, address: str) -> None:
        self.driver = driver
        self.address = address

    def load(self, width: int = 1100, height: int = 1000) -> Page:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(self.address)
        self.settle()
        return self

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    @property
    def state(self) -> str:
        return self.run("return document.body.dataset.state")

    @property
    def status(self) -> str:
        return self.one("#status").text

    def settle(self, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while self.state in ("loading", "working"):
            assert time.monotonic() < end, self.status
            time.sleep(0.05)

    def open(self, path: Path) -> None:
        self.run("document.body.dataset.state = 'waiting'")
        self.one("#file").send_keys(str(path))
        end = time.monotonic() + 60
        while self.state == "waiting":
            assert time.monotonic() < end, "the page did not notice the file"
            time.sleep(0.02)
        self.settle()

    def fetch(self, selector: str, attribute: str = "href") -> bytes:
        found = self.driver.execute_async_script(FETCH, selector, attribute)
        assert not found.startswith("failed"), found
        return base64.b64decode(found)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = make_server(None, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator:
    if not chromium.INSTALLED:
        pytest.skip("needs chromium and chromedriver")
    if not runtime.is_installed():
        pytest.skip("needs onnxruntime-web: simvq-audio demo --install")
    pytest.importorskip("selenium")
    driver = chromium.start(tmp_path_factory.mktemp("profile"), *ARGUMENTS)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(driver, address) -> Page:
    return Page(driver, address).load()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load(device="cpu")


def test_a_recording_gets_the_command_lines_codes(page, codec, tmp_path):
    page.open(HELLO)
    assert (page.state, page.status) == ("ready", "")
    data = page.fetch("#save-codes")
    expected = codec.encode_file(HELLO)
    assert data == expected.to_bytes()
    numbers = page.one("#numbers").text
    assert f"{len(data)} bytes" in numbers and "0.700 kbit/s" in numbers
    # What is heard is what the command line decodes, to the 16 bits of a .wav.
    (tmp_path / "page.wav").write_bytes(page.fetch("#decoded audio", "src"))
    heard, rate = read_audio(tmp_path / "page.wav")
    assert rate == 24_000
    np.testing.assert_allclose(heard, codec.decode(expected).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"), [(16_000, 1, ".flac"), (44_100, 2, ".wav"), (8_000, 1, ".wav")]
)
def test_other_rates_differ_in_few_codes(page, codec, tmp_path, rate, channels, suffix):
    waveform, hello_rate = read_audio(HELLO)
    waveform = np.repeat(resample(waveform[:, : 3 * hello_rate], hello_rate, rate), channels, 0)
    path = tmp_path / f"speech{suffix}"
    soundfile.write(path, waveform.T, rate)
    page.open(path)
    assert page.state == "ready", page.status
    found, expected = Codes.from_bytes(page.fetch("#save-codes")), codec.encode_file(path)
    assert (found.sample_rate, found.num_samples) == (rate, expected.num_samples)
    # The page has a resampling filter of its own.
    assert (found.indices != expected.indices).mean() < 0.03
    (tmp_path / "page.codes").write_bytes(found.to_bytes())
    with pytest.raises(SystemExit) as end:
        main(["decode", str(tmp_path / "page.codes"), str(tmp_path / "decoded.wav"), "--quiet"])
    assert end.value.code in (None, 0)
    assert soundfile.info(tmp_path / "decoded.wav").frames == expected.num_samples


def test_codes_are_opened_and_loss_is_heard(page, codec, tmp_path):
    path = tmp_path / "other.codes"
    codes = codec.encode_file(HELLO)
    codes.save(path, "fixed")
    page.open(path)
    assert page.state == "ready", page.status
    assert not page.one("#original").is_displayed() and page.one("#decoded").is_displayed()
    assert page.fetch("#save-codes") == codes.to_bytes()
    whole = page.fetch("#decoded audio", "src")
    page.run(
        "const loss = document.querySelector('#loss'); loss.value = 20;"
        "for (const kind of ['input', 'change']) loss.dispatchEvent(new Event(kind));"
    )
    page.settle()
    assert page.one("#loss-share").text == "20 %"
    lossy = page.fetch("#decoded audio", "src")
    assert len(lossy) == len(whole) and lossy != whole


def test_fewer_bits(page, codec, tmp_path):
    speech = tmp_path / "speech.wav"
    waveform, rate = read_audio(HELLO)
    soundfile.write(speech, waveform[0, : 3 * rate], rate)
    page.open(speech)
    sizes, same = [], []
    nearest = codec.encode_file(speech)
    for worth in (0, 2, 5):
        page.run(
            "const worth = document.querySelector('#worth'); worth.value = arguments[0];"
            "worth.dispatchEvent(new Event('change'));",
            worth,
        )
        page.settle()
        assert page.state == "ready", page.status
        found = Codes.from_bytes(page.fetch("#save-codes"))
        sizes.append(len(found.to_bytes()))
        same.append((found.indices == nearest.indices).mean())
    assert same[0] == 1 and sizes[0] > 1.1 * sizes[1] > 1.2 * sizes[2]
    # Most are still near; a search that found anything likely would lose the speech.
    assert same[1] > 0.3


def test_files_that_cannot_be_used_are_named(page, codec, tmp_path):
    codes = codec.encode_file(HELLO).to_bytes()
    other = Codes(np.zeros(75, int), 8192, "0123456789ab", 24_000, 24_000).to_bytes()
    for content, message in (
        (codes[:-1], "truncated"),
        (codes[:60] + bytes([codes[60] ^ 1]) + codes[61:], "altered or damaged"),
        (other, "this page decodes c153ae81d324"),
        (b"what is this", "cannot read the file as audio"),
        (b"RIFF1234WAVE", "no samples"),
    ):
        path = tmp_path / "bad.bin"
        path.write_bytes(content)
        page.open(path)
        assert page.state == "failed" and message in page.status, page.status
    page.open(HELLO)
    assert page.state == "ready"


def test_the_microphone_is_recorded(page):
    page.one("#record").click()
    end = time.monotonic() + 30
    while page.status != "Recording …":
        assert time.monotonic() < end, page.status
        time.sleep(0.05)
    time.sleep(1.0)
    page.one("#record").click()
    end = time.monotonic() + 30
    while page.one("#save-codes").get_attribute("download") != "recording.codes":
        assert time.monotonic() < end, page.status
        time.sleep(0.05)
    page.settle()
    codes = Codes.from_bytes(page.fetch("#save-codes"))
    assert codes.duration > 0.3 and len(np.unique(codes.indices)) > 1


def test_it_fits_a_phone_and_asks_no_other_host(page):
    page.load(width=390, height=800)
    page.one("#example").click()
    end = time.monotonic() + 60
    while not page.one("#result").is_displayed():
        assert time.monotonic() < end, page.status
        time.sleep(0.05)
    page.settle()
    assert page.run("return document.documentElement.scrollWidth") <= 390
    for button in page.driver.find_elements("css selector", "button, .button"):
        assert button.rect["height"] >= 44
    addresses = set()
    for entry in page.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            addresses.add(message["params"]["request"]["url"])
    assert f"{page.address}app.js" in addresses
    foreign = {
        # Not those that the browser's own pages make (chrome://).
        found
        for found in addresses
        if found.startswith(("http", "ws")) and not found.startswith(page.address)
    }
    assert not foreign
    errors = [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


# -- the server and the runtime -----------------------------------------------------------------


def test_nothing_else_is_served(address):
    with urllib.request.urlopen(address) as response:
        assert b"<h1>simvq-audio</h1>" in response.read()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    for path in ("server.py", "../__init__.py", "%2e%2e/__init__.py", "runtime/other.js"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + path)


def test_another_runtime_is_refused(tmp_path, monkeypatch):
    import tarfile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for name in runtime.FILES:
            (tmp_path / name).write_bytes(b"something else")
            package.add(tmp_path / name, f"package/dist/{name}")
    with pytest.raises(ModelError, match="is not that of"):
        runtime.install(archive)
    archive.write_bytes(b"no archive")
    with pytest.raises(ModelError, match="is not the package"):
        runtime.install(archive)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtraError, match="npm is not installed"):
        runtime.install()
    assert not runtime.is_installed() and not (tmp_path / "cache").exists()


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main(["demo", "--no-open"])
    assert end.value.code == 1
    assert "simvq-audio demo --install" in capsys.readouterr().err
