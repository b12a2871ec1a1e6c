"""The report's page in a headless Chromium: what a visitor sees, hears and does.

Which sound is heard is measured at the page's output: each signal has a pitch of its own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from page_reports import (
    DECODED_HERTZ,
    HOSTILE,
    ORIGINAL_HERTZ,
    OTHER_HERTZ,
    SECONDS,
    USE,
    file,
    make_report,
    sounding_report,
    system,
    tone,
)

from simvq_audio.evaluation.report.page import write_page

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed"
)

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)
# Whatever the page sends to the loudspeakers goes through an analyser first.
LISTEN = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const context = this.context;
    if (!window.ear) {
      window.ear = new AnalyserNode(context, {fftSize: 8192, smoothingTimeConstant: 0});
      connect.call(window.ear, context.destination);
    }
    return connect.call(this, window.ear);
  }
  return connect.call(this, target, ...rest);
};
"""
# The loudest pitch in Hz, and the level in dB at each of the given ones.
HEAR = """
const levels = new Float32Array(ear.frequencyBinCount);
ear.getFloatFrequencyData(levels);
const width = ear.context.sampleRate / ear.fftSize;
return arguments[0].map((hertz) => levels[Math.round(hertz / width)]);
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path, selenium looks for none on the network.
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page(sounding_report(folder), folder / "index.html", players=4)
    return folder / "index.html"


class Browser:
    """The page in the browser, and what its visitor does."""

    def __init__(self, driver, path: Path) -> None:
        self.driver = driver
        self.open(path)

    def open(self, path: Path, width: int = 1280, height: int = 800) -> None:
        self.command("Emulation.setEmulatedMedia", media="", features=[])
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def command(self, name: str, **arguments) -> dict:
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def choose(self, select: str, text: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.one(select)).select_by_visible_text(text)

    def until(self, condition: Callable[[], object], seconds: float = 20):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(0.03)
        return found

    # -- the list

    @property
    def names(self) -> list[str]:
        return [each.text for each in self.all("#list summary .file")]

    @property
    def opened(self) -> list[str]:
        return [each.text for each in self.all("#list details[open] summary .file")]

    # -- the player of the open recording

    @property
    def position(self) -> float:
        return float(self.one("details[open] .seek").get_property("value"))

    @property
    def playing(self) -> bool:
        return self.one("details[open] .play").get_attribute("aria-label") == "Pause"

    def hears(self) -> int | None:
        """The pitch that is heard alone, or None."""
        if not self.run("return Boolean(window.ear)"):
            return None
        pitches = (ORIGINAL_HERTZ, DECODED_HERTZ, OTHER_HERTZ)
        levels = [-200 if level is None else level for level in self.run(HEAR, pitches)]
        best, second = sorted(levels, reverse=True)[:2]
        # What is not chosen is silent, and not only less loud.
        return pitches[levels.index(best)] if best > -30 and second < best - 40 else None

    def hears_soon(self, *pitches: int) -> int:
        """The one of these pitches that is heard, once what was heard before has faded."""
        clock = "return window.ear ? ear.context.currentTime : null"
        began = self.until(lambda: self.run(clock))
        # Longer than the analyser looks back.
        self.until(lambda: self.run(clock) > began + 0.3)
        return self.until(lambda: (heard := self.hears()) in pitches and heard)

    def errors(self) -> list[dict]:
        return self.driver.get_log("browser")

    def requests(self) -> list[str]:
        entries = [
            json.loads(each["message"])["message"] for each in self.driver.get_log("performance")
        ]
        return [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture
def browser(driver, page_file: Path) -> Iterator[Browser]:
    browser = Browser(driver, page_file)
    yield browser
    assert browser.errors() == []
    requests = [url for url in browser.requests() if not url.startswith("data:")]
    assert requests == [page_file.as_uri()]


def test_it_opens_with_the_worst_recording(browser: Browser) -> None:
    assert browser.names == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    assert browser.opened == ["a.wav"]
    assert len(browser.all("details[open] .lane")) == 3
    # The pictures are there, not only their elements.
    widths = browser.run(
        "return [...document.querySelectorAll('.lane img')].map(each => each.decode() && 1)"
    )
    assert widths == [1, 1, 1]
    browser.until(
        lambda: browser.run("return document.querySelector('.lane img').naturalWidth > 100")
    )
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_play_pause_and_seek(browser: Browser) -> None:
    assert not browser.playing and browser.position == 0
    browser.one("details[open] .play").click()
    browser.hears_soon(ORIGINAL_HERTZ)
    start = browser.position
    browser.until(lambda: browser.position > start + 0.3)
    assert browser.playing
    browser.run(
        "const seek = document.querySelector('details[open] .seek'); seek.value = 4;"
        "seek.dispatchEvent(new Event('input'))"
    )
    browser.until(lambda: 4 < browser.position < 5.5)
    assert browser.playing
    browser.one("details[open] .play").click()
    assert not browser.playing
    position = browser.position
    browser.until(lambda: browser.hears() is None)
    assert browser.position == position > 4
    assert browser.text("details[open] .time") == f"{position:.1f} of {SECONDS:.1f} s"


def test_it_ends_and_starts_again(browser: Browser) -> None:
    browser.run(
        "const seek = document.querySelector('details[open] .seek'); seek.value = 5.6;"
        "seek.dispatchEvent(new Event('input'))"
    )
    browser.press(" ")
    browser.until(lambda: browser.playing)
    browser.until(lambda: not browser.playing)
    assert browser.position == pytest.approx(SECONDS)
    browser.press(" ")
    browser.until(lambda: browser.playing and browser.position < 3)


def test_switching_keeps_the_position(browser: Browser) -> None:
    browser.press("a")
    browser.hears_soon(ORIGINAL_HERTZ)
    # The audio clock beside the bar: both go on alike through every switch.
    clock = "return [ear.context.currentTime, Number(document.querySelector('.seek').value)]"
    began, position = browser.run(clock)
    for key, pitch in (("b", DECODED_HERTZ), ("a", ORIGINAL_HERTZ), ("b", DECODED_HERTZ)):
        browser.press(key)
        browser.hears_soon(pitch)
        now, at = browser.run(clock)
        # The bar follows at the browser's next picture.
        assert at - position == pytest.approx(now - began, abs=0.25)
        assert browser.playing
    pressed = browser.all("details[open] .listen[aria-pressed=true]")
    assert [each.text for each in pressed] == ["B first"]


def test_nothing_is_lost_or_shifted_by_a_switch(browser: Browser) -> None:
    """Two copies of one noise: through switches and a seek the output is the noise itself."""
    found = browser.driver.execute_async_script(
        """
        const done = arguments[0];
        const rate = 48000, noise = new AudioBuffer({length: 2 * rate, sampleRate: rate});
        const samples = noise.getChannelData(0);
        for (let i = 0; i < samples.length; i += 1) samples[i] = Math.random() - 0.5;
        const context = new OfflineAudioContext(1, 2 * rate, rate);
        context.resume = () => {};
        const player = new Player(context, [noise, noise], () => {});
        player.seek(0.25);
        player.select(0);
        player.play();
        delete context.resume;
        [0.4, 0.402, 0.7].forEach((time, index) => context.suspend(time).then(() => {
          player.select((index + 1) % 2);
          context.resume();
        }));
        context.startRendering().then((rendered) => {
          const output = rendered.getChannelData(0);
          const start = Math.round((0.02 - 0.25) * rate);
          let worst = 0;
          for (let i = Math.round(0.05 * rate); i < rate; i += 1) {
            worst = Math.max(worst, Math.abs(output[i] - samples[i - start]));
          }
          done([worst, player.position]);
        });
        """
    )
    worst, position = found
    assert worst < 1e-3
    assert position == pytest.approx(2.0, abs=0.05)


def test_switching_while_paused_stays_where_it_is(browser: Browser) -> None:
    browser.press("a")
    browser.until(lambda: browser.position > 0.5)
    browser.press(" ")
    browser.until(lambda: not browser.playing)
    position = browser.position
    browser.press("b")
    browser.hears_soon(DECODED_HERTZ)
    assert position <= browser.position < position + 2


def test_another_system_becomes_b(browser: Browser) -> None:
    browser.all("details[open] .listen")[2].click()
    browser.hears_soon(OTHER_HERTZ)
    browser.press("a")
    browser.hears_soon(ORIGINAL_HERTZ)
    browser.press("b")
    browser.hears_soon(OTHER_HERTZ)
    # After a click the space bar plays and pauses.
    browser.all("details[open] .listen")[1].click()
    browser.hears_soon(DECODED_HERTZ)
    browser.press(" ")
    browser.until(lambda: not browser.playing)


def test_x_is_one_of_both_and_votes_count(browser: Browser) -> None:
    state, tally = "details[open] .state", "details[open] .tally"
    assert browser.text(tally) == "no votes yet"
    browser.press("1")
    assert browser.text(state) == "Listen to X before you vote."
    seen, right = set(), 0
    votes = 0
    # Both come up; that one of them does not in 30 draws happens once in 2 ** 29.
    while votes < 4 or (len(seen) < 2 and votes < 30):
        browser.press("x")
        pitch = browser.hears_soon(ORIGINAL_HERTZ, DECODED_HERTZ)
        assert browser.all("details[open] .listen[aria-pressed=true]") == []
        assert browser.all("details[open] .lane.heard") == []
        seen.add(pitch)
        was = "A" if pitch == ORIGINAL_HERTZ else "B"
        # All right but the second.
        wrong = votes == 1
        browser.press("1" if (was == "A") != wrong else "2")
        votes, right = votes + 1, right + (not wrong)
        word = "Wrong" if wrong else "Right"
        assert browser.text(state).startswith(f"{word}: X was {was}.")
        assert browser.text(tally).startswith(f"{right} of {votes} right, p ")
        # Not the next X, which would tell by a change that it is another.
        browser.hears_soon(ORIGINAL_HERTZ)
    assert seen == {ORIGINAL_HERTZ, DECODED_HERTZ}
    browser.press("2")
    assert browser.text(state) == "Listen to X before you vote."
    # Each system has its own score.
    browser.all("details[open] .listen")[2].click()
    browser.until(lambda: browser.text(tally) == "no votes yet")


def test_the_p_value_is_that_of_guessing(browser: Browser) -> None:
    stats = pytest.importorskip("scipy.stats")
    for right, votes in ((0, 1), (1, 1), (3, 4), (7, 10), (9, 10), (60, 100), (400, 900)):
        found = browser.run(
            "const tally = new Tally(); tally.right = arguments[0];"
            "tally.votes = arguments[1]; return tally.pValue",
            right,
            votes,
        )
        expected = stats.binomtest(right, votes, 0.5, "greater").pvalue
        assert found == pytest.approx(expected, rel=1e-6)


def test_next_recording_and_its_focus(browser: Browser) -> None:
    browser.press("b")
    browser.hears_soon(DECODED_HERTZ)
    for name in ("b.wav", "c.wav", "d.wav", "a.wav"):
        browser.press("n")
        # e.wav, the fifth, has no player; after the last comes the first.
        browser.until(lambda name=name: browser.opened == [name])
    browser.until(lambda: browser.hears() is None)
    assert not browser.playing
    # As it was left: with B chosen.
    browser.press(" ")
    browser.hears_soon(DECODED_HERTZ)
    assert browser.playing


def test_one_recording_is_heard_at_a_time(browser: Browser) -> None:
    browser.all("#list summary")[1].click()
    browser.until(lambda: len(browser.all("details[open] .play")) == 2)
    first, second = browser.all("details[open] .play")
    browser.until(lambda: browser.run("return document.activeElement") == second)
    first.click()
    browser.until(lambda: first.get_attribute("aria-label") == "Pause")
    second.click()
    browser.until(lambda: second.get_attribute("aria-label") == "Pause")
    assert first.get_attribute("aria-label") == "Play"


def test_typing_is_not_a_command(browser: Browser) -> None:
    browser.one("#text-filter").send_keys("b")
    assert browser.names == ["b.wav"]
    assert browser.run("return Boolean(window.ear)") is False
    browser.one("#text-filter").send_keys("xn 1")
    assert browser.names == [] and browser.text("#list-state") == "0 of 5 recordings"


def test_sorting_and_filtering(browser: Browser) -> None:
    assert browser.text("#sort-metric option:checked") == "Quality"
    browser.choose("#sort-order", "best first")
    # By the worse of both systems: the second has 7 less a tenth of the first one's.
    assert browser.names == ["e.wav", "d.wav", "c.wav", "b.wav", "a.wav"]
    browser.choose("#sort-system", "second")
    assert browser.names == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    browser.choose("#sort-order", "by name")
    browser.choose("#folder-filter", "two")
    assert browser.names == ["b.wav", "d.wav", "e.wav"]
    assert browser.text("#list-state") == "3 of 5 recordings"
    browser.one("#text-filter").send_keys("E.W")
    assert browser.names == ["e.wav"]
    browser.choose("#sort-metric", "Level")
    assert browser.text("#sort-order option:first-child") == "lowest first"
    browser.one("#list summary").click()
    browser.until(lambda: browser.all("details[open] table"))
    assert "Not among the recordings" in browser.text("details[open] .body")
    assert "Quality 5.50 6.45" in browser.text("details[open] table").replace("\n", " ")


def test_lower_is_better_is_sorted_high_first(driver, tmp_path: Path) -> None:
    files = [file(f"{name}.wav", 1.0) for name in "abc"]
    for each, error in zip(files, (5.0, 9.0, 7.0)):
        each.scores["error"] = error
    del files[2].scores["error"]
    files[2].problems["error"] = "no pitch"
    write_page(make_report([system("it", files)]), tmp_path / "index.html", players=0)
    browser = Browser(driver, tmp_path / "index.html")
    browser.choose("#sort-metric", "Error")
    assert browser.names == ["b.wav", "a.wav", "c.wav"]
    browser.choose("#sort-order", "best first")
    # Without a score: last in either order, and it says so.
    assert browser.names == ["a.wav", "b.wav", "c.wav"]
    assert browser.all("#list .chips")[2].text == "no score"
    browser.all("#list summary")[2].click()
    browser.until(lambda: browser.all("details[open] table"))
    assert "no pitch" in browser.text("details[open] table")


def test_a_metric_is_chosen(browser: Browser) -> None:
    def shown() -> list[str]:
        return [each.text for each in browser.all(".by-metric h3") if each.is_displayed()]

    assert shown() == ["Level dB"]
    browser.choose("#metric-choice", "Quality")
    assert shown() == ["Quality ↑"]
    assert sum(each.is_displayed() for each in browser.all(".by-metric svg")) == 2


def test_many_recordings_come_in_steps(driver, tmp_path: Path) -> None:
    files = [file(f"{index:03}.wav", 1.0 + index) for index in range(250)]
    write_page(make_report([system("it", files)]), tmp_path / "index.html", players=0)
    browser = Browser(driver, tmp_path / "index.html")
    assert len(browser.all("#list summary")) == 100
    assert browser.text("#more") == "Show 100 more"
    browser.one("#more").click()
    assert browser.text("#more") == "Show 50 more"
    browser.one("#more").click()
    assert len(browser.all("#list summary")) == 250
    assert not browser.one("#more").is_displayed()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser) -> None:
    from selenium.webdriver import Keys

    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.one(".skip").rect["x"] >= 0
    browser.run("document.querySelector('details[open] summary').focus()")
    labels = []
    for _ in range(7):
        browser.press(Keys.TAB)
        style = browser.run(
            "const style = getComputedStyle(document.activeElement);"
            "return [style.outlineStyle, document.activeElement.innerText.trim()"
            " || document.activeElement.getAttribute('aria-label')]"
        )
        assert style[0] == "solid"
        labels.append(" ".join(style[1].split()))
    assert labels[:3] == ["A Original", "B first", "second"]
    assert labels[3:] == ["Play", "Position", "X Hidden", "1 X is A"]
    # On a button the space bar presses that button.
    browser.run("document.querySelector('details[open] .hidden-x').focus()")
    browser.press(" ")
    browser.until(lambda: browser.one(".hidden-x").get_attribute("aria-pressed") == "true")


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, page_file: Path) -> None:
    browser.open(page_file, 360, 740)
    for metric in ("Level", "Quality"):
        browser.choose("#metric-choice", metric)
        assert browser.run("return document.documentElement.scrollWidth") == 360
    sizes = [each.rect for each in browser.all("details[open] button, #recordings select")]
    # Large enough for a finger.
    assert min(size["height"] for size in sizes if size["height"]) >= 36


def luminance(colour: str) -> float:
    red, green, blue = (int(part) for part in colour[4:-1].split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_dark_mode(browser: Browser) -> None:
    colours = (
        "const style = (each) => getComputedStyle(document.querySelector(each));"
        "return [style('body').backgroundColor, style('body').color,"
        " style('.by-metric:not([hidden]) .plot text').fill]"
    )
    ground, ink, letters = map(luminance, browser.run(colours))
    assert ground > 0.95 and ink < 0.2 and letters < 0.2
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.command("Emulation.setEmulatedMedia", features=[feature])
    ground, ink, letters = map(luminance, browser.run(colours))
    assert ground < 0.15 and ink > 0.8 and letters > 0.8
    # On paper it is light all the same.
    browser.command("Emulation.setEmulatedMedia", media="print", features=[feature])
    assert luminance(browser.run(colours)[0]) > 0.95


def test_print_has_no_controls(browser: Browser) -> None:
    controls = ".controls, nav, .transport, .test, .play, .seek, #sort-metric, #more"
    assert any(each.is_displayed() for each in browser.all(controls))
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert [each for each in browser.all(controls) if each.is_displayed()] == []
    for kept in ("#summary table", "#metrics svg", "#codebook svg", ".lane img", "#provenance"):
        assert browser.one(kept).is_displayed()


def test_hostile_names_are_inert(driver, tmp_path: Path) -> None:
    wav = tone(tmp_path / "tone.wav", 400, 0.3)
    files = [file(f"{name}/{name}", index, wav, wav) for index, name in enumerate(HOSTILE)]
    systems = [
        system(name, files, codebook={"all": USE}, failures={name: name}) for name in HOSTILE
    ]
    path = tmp_path / "index.html"
    write_page(make_report(systems, command=HOSTILE[1]), path)
    browser = Browser(driver, path)
    for details in browser.all("details:not([open]) > summary"):
        details.click()
    browser.until(lambda: len(browser.all("#list details[open] .lane")) == 20)
    assert browser.run("return window.hacked") is None
    shown = [each.get_attribute("textContent") for each in browser.all("#list .file")]
    assert shown == [name.rpartition("/")[2] for name in HOSTILE]
    letters = [each.get_attribute("textContent") for each in browser.all(".plot text")]
    assert set(HOSTILE) <= set(letters)
    for option in browser.all("#folder-filter option")[1:]:
        option.click()
        assert len(browser.names) == 1
    assert browser.errors() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [path.as_uri()]


def test_without_scripts_the_rest_is_there(browser: Browser, page_file: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page_file)
        sections = browser.all(".by-metric")
        assert len(sections) == 3 and all(each.is_displayed() for each in sections)
        assert "need JavaScript" in browser.text("main")
        assert not browser.one("#recordings").is_displayed()
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
