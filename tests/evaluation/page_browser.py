"""A headless Chromium that shows the report's page, and what its visitor sees, hears and does.

Which sound is heard is measured at the page's output: each signal has a pitch of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import chromium
from page_reports import DECODED_HERTZ, ORIGINAL_HERTZ, OTHER_HERTZ

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
# The level in dB at each of the given pitches in Hz.
HEAR = """
const levels = new Float32Array(ear.frequencyBinCount);
ear.getFloatFrequencyData(levels);
const width = ear.context.sampleRate / ear.fftSize;
return arguments[0].map((hertz) => levels[Math.round(hertz / width)]);
"""


def start(profile: Path):
    """Start the browser with a new profile folder; the caller quits it."""
    driver = chromium.start(profile, "--autoplay-policy=no-user-gesture-required")
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    return driver


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
