"""The report's page without a browser: its content, and that no name becomes markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from page_reports import (
    DECODED_HERTZ,
    ERROR,
    HOSTILE,
    NUMBER,
    QUALITY,
    SECONDS,
    USE,
    file,
    make_report,
    sounding_report,
    system,
    tone,
)

from simvq_audio.errors import ConfigError, MissingExtraError
from simvq_audio.evaluation.report.page import write_page

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """A parsed page: its elements, the text of each, and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append((dict(attributes), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def json(self, name: str):
        return json.loads(next(text for of, text in self.scripts if of.get("id") == name))

    def texts_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.elements if each == tag]


def written(report, folder: Path, **options) -> Page:
    path = folder / "index.html"
    write_page(report, path, **options)
    assert [each.name for each in folder.iterdir() if each.name.startswith(".")] == []
    return Page(path)


def test_summary_by_folder_and_intervals(tmp_path: Path) -> None:
    values = {"one/a.wav": 1.0, "one/b.wav": 2.0, "two/c.wav": 4.5, "two/d.wav": 4.5}
    first = [file(name, value) for name, value in values.items()]
    second = [file(name, value - 1) for name, value in values.items()]
    report = make_report([system("first", first), system("second", second, kbps=None)])
    text = written(report, tmp_path, players=0).text
    # Means over all, the better one marked; by folder; the constant folder's interval is a point.
    summary = text[text.index("Summary") : text.index("Differences")]
    assert "Bit rate kbit/s 1.000 unknown" in summary
    quality = summary[summary.index("Quality") : summary.index("Error")]
    assert "3.00 best" in quality and "2.00 best" not in quality
    low, high = map(float, re.search(r"3\.00 best (\S+) to (\S+)", quality).groups())
    assert 1.0 <= low < 3.0 < high <= 4.5
    assert "two 2 files 4.50 best 4.50 to 4.50 3.50 3.50 to 3.50" in text
    assert "-1.00 -1.00 to -1.00" in text
    assert "Not drawn, since their bit rate is unknown: second." in text


def test_lower_can_be_better_and_no_direction_has_no_best(tmp_path: Path) -> None:
    better = file("a.wav", 2.0)
    better.scores["error"] = 5.0
    report = make_report([system("first", [file("a.wav", 2.0)]), system("second", [better])])
    text = written(report, tmp_path, players=0).text
    summary = text[text.index("Summary") : text.index("Differences")]
    assert "Error Hz ↓ 10.000 5.000 best" in summary
    assert "Level dB 1.0 1.0" in summary


def test_problems_are_named_and_never_in_means(tmp_path: Path) -> None:
    files = [file("a.wav", 2.0), file("b.wav", None), file("c.wav", 3.0)]
    report = make_report([system("it", files, failures={"x/d.wav": "is <damaged>"})])
    page = written(report, tmp_path, players=0)
    assert "2 of 3 files" in page.text and "2.50" in page.text
    assert "it: 1 failed x/d.wav is <damaged>" in page.text
    assert "it: 1 without a score of Quality; not in its means b.wav there is <no>" in page.text
    recordings = {each["name"]: each for each in page.json("data")["recordings"]}
    assert recordings["b.wav"]["scores"] == [[1.0, None, 10.0]]
    assert recordings["b.wav"]["problems"] == [{"quality": "there is <no> speech in it"}]


def test_no_problem_is_said(tmp_path: Path) -> None:
    page = written(make_report([system("it", [file("a.wav", 2.0)])]), tmp_path, players=0)
    assert "None: every recording was coded" in page.text


def test_a_metric_without_any_score(tmp_path: Path) -> None:
    page = written(make_report([system("it", [file("a.wav", None)])]), tmp_path, players=0)
    assert "No recording has a score of this metric." in page.text


def test_codebook_and_provenance(tmp_path: Path) -> None:
    report = make_report(
        [
            system(
                "it",
                [file("a.wav", 1.0)],
                codebook={"all": USE, "one": USE},
                model_id="0123456789ab",
                delay=80,
                delay_rate=16_000,
            )
        ]
    )
    text = written(report, tmp_path, players=0).text
    assert "16 62.5 % 5 of 8 4 1.88" in text.replace("\xa0", " ")
    for fact in (
        "simvq-audio evaluate <dir> & more",
        "a machine",
        "pesq\xa00.0.4",
        "model 0123456789ab",
        "delay of 80 samples at 16000 Hz removed",
    ):
        assert " ".join(fact.split()) in " ".join(text.split())


def test_hostile_names_are_text(tmp_path: Path) -> None:
    wav = tone(tmp_path / "tone.wav", 400, 0.3)
    files = [file(f"{name}/{name}", index, wav, wav) for index, name in enumerate(HOSTILE)]
    names = [*HOSTILE, "_hidden"]
    systems = [
        system(name, files, codebook={"all": USE}, kbps=index + 1.0, failures={name: name})
        for index, name in enumerate(names)
    ]
    report = make_report(systems, command=HOSTILE[1], machine=HOSTILE[2])
    page = written(report, tmp_path)
    # Elements and attributes are those of a page with plain names, and all scripts are ours.
    assert not any(set(attributes) & {"onerror", "onload"} for _, attributes in page.elements)
    # The one template of pictures in cards.
    assert page.texts_of("img") == [{"alt": ""}]
    policy = next(
        each["content"]
        for each in page.texts_of("meta")
        if "Policy" in (each.get("http-equiv") or "")
    )
    for attributes, text in page.scripts:
        if attributes.get("type") == "application/json":
            assert json.loads(text)
        else:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    assert len(page.scripts) == 3 + 1 + len(HOSTILE)
    data = page.json("data")
    assert data["systems"] == names
    assert {each["name"] for each in data["recordings"]} == {each.name for each in files}
    # In headings, problems and pictures they stand letter by letter: no template, no formula.
    flat = " ".join(page.text.split())
    for name in names:
        assert flat.count(" ".join(name.split())) > 5


def test_it_asks_for_nothing_outside(tmp_path: Path) -> None:
    page = written(sounding_report(tmp_path), tmp_path)
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page.source


def test_players_are_of_the_worst_and_bounded(tmp_path: Path) -> None:
    report = sounding_report(tmp_path)
    page = written(report, tmp_path, players=2)
    recordings = {each["name"]: each["media"] for each in page.json("data")["recordings"]}
    # By the first metric with a direction: quality, of which low is bad.
    assert recordings == {
        "one/a.wav": 0,
        "two/b.wav": 1,
        "one/c.wav": None,
        "two/d.wav": None,
        "two/e.wav": None,
    }
    assert "2 of 5 recordings can be listened to" in page.text
    assert "worst Quality; 3 are listed with their scores alone" in page.text
    assert sum("media-" in (of.get("id") or "") for of, _ in page.scripts) == 2
    with pytest.raises(ConfigError, match="players"):
        write_page(report, tmp_path / "index.html", players=-1)


def test_worst_by_a_metric_of_which_high_is_bad(tmp_path: Path) -> None:
    files = [file(name, 1.0) for name in ("a.wav", "b.wav", "c.wav")]
    for each, error in zip(files, (2.0, 9.0, 5.0)):
        each.scores["error"] = error
    del files[2].scores["error"]
    report = make_report([system("it", files)], metrics=(NUMBER, ERROR, QUALITY))
    page = written(report, tmp_path, players=3)
    places = {each["name"]: each["media"] for each in page.json("data")["recordings"]}
    assert places == {"b.wav": 0, "a.wav": 1, "c.wav": 2}


def heard(signal: dict[str, str]) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(signal["flac"])), always_2d=True)


def test_the_sound_is_that_of_the_files(tmp_path: Path) -> None:
    page = written(sounding_report(tmp_path), tmp_path, players=1)
    original, first, second = page.json("media-0")["signals"]
    assert [original["name"], first["name"], second["name"]] == ["Original", "first", "second"]
    for signal, path in ((original, "reference"), (first, "decoded"), (second, "other")):
        sound, rate = heard(signal)
        expected, expected_rate = soundfile.read(tmp_path / f"{path}.wav", always_2d=True)
        assert rate == expected_rate and np.abs(sound - expected).max() < 2 / 32768
        image = base64.b64decode(signal["spectrogram"])
        assert image[:4] == b"RIFF" and image[8:12] == b"WEBP"
    assert page.json("media-0")["seconds"] == pytest.approx(SECONDS)


def test_spectrograms_show_the_pitch(tmp_path: Path) -> None:
    from PIL import Image

    page = written(sounding_report(tmp_path), tmp_path, players=1)
    media = page.json("media-0")
    for signal, hertz in zip(media["signals"][:2], (400, DECODED_HERTZ)):
        content = io.BytesIO(base64.b64decode(signal["spectrogram"]))
        brightness = np.asarray(Image.open(content).convert("L"), float).mean(1)
        height = 1 - (np.argmax(brightness) + 0.5) / len(brightness)
        assert 1000 * media["max_kilohertz"] * height == pytest.approx(hertz, abs=60)


def test_long_recordings_are_cut_and_delay_is_removed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40 * 8000)
    soundfile.write(tmp_path / "long.wav", noise, 8000)
    late = np.concatenate([np.zeros(200), noise])
    soundfile.write(tmp_path / "late.wav", late, 8000)
    result = file("long.wav", 1.0, str(tmp_path / "long.wav"), str(tmp_path / "late.wav"))
    result = type(result)(**{**vars(result), "duration": 40.0})
    # Stated at another rate than that of the file.
    report = make_report([system("it", [result], delay=400, delay_rate=16_000)])
    media = written(report, tmp_path).json("media-0")
    sounds = [heard(signal)[0] for signal in media["signals"]]
    assert media["whole_seconds"] == 40.0 and media["seconds"] == 30.0
    assert [len(sound) for sound in sounds] == [30 * 8000] * 2
    assert np.abs(sounds[0] - sounds[1]).max() < 2 / 32768


def test_what_cannot_be_heard_says_why(tmp_path: Path) -> None:
    wav = tone(tmp_path / "tone.wav", 400, 0.3)
    gone = str(tmp_path / "gone.wav")
    first = [file("a.wav", 1.0, wav, gone), file("b.wav", 2.0, gone, wav)]
    report = make_report(
        [system("first", first), system("second", [file("a.wav", 1.0, wav, None)])]
    )
    page = written(report, tmp_path)
    original, one, two = page.json("media-0")["signals"]
    assert original["flac"] and one["flac"] is None and two["flac"] is None
    assert "gone.wav: cannot be read" in one["problem"] and "not kept" in two["problem"]
    assert "gone.wav: cannot be read" in page.json("media-1")["problem"]


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "index.html"
    target.write_text("old")
    report = make_report([system("it", [file("a.wav", 1.0)])])

    def fail(*arguments: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("simvq_audio.evaluation.report.page.recording_media", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            write_page(report, target)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"jinja2.*simvq-audio\[eval\]"):
        write_page(report, target)
    assert [each.name for each in tmp_path.iterdir()] == ["index.html"]
    assert target.read_text() == "old"


def test_rate_stays_a_rate(tmp_path: Path) -> None:
    """A sound of a rate beyond what browsers play well is embedded at 48 kHz."""
    wav = tone(tmp_path / "tone.wav", 400, 0.3, 96_000)
    page = written(make_report([system("it", [file("a.wav", 1.0, wav, wav)])]), tmp_path)
    sound, rate = heard(page.json("media-0")["signals"][0])
    assert (rate, len(sound)) == (48_000, 14_400)
