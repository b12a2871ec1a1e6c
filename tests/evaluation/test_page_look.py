"""The report's page in a headless Chromium: list, sizes, dark mode, paper, hostile names."""

from __future__ import annotations

from pathlib import Path

from page_browser import Browser
from page_reports import (
    HOSTILE,
    USE,
    file,
    make_report,
    system,
    tone,
)

from simvq_audio.evaluation.report.page import write_page


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


def test_problems_are_named_on_paper(driver, tmp_path: Path) -> None:
    report = make_report([system("it", [file("a.wav", None)], failures={"b.wav": "is damaged"})])
    write_page(report, tmp_path / "index.html")
    browser = Browser(driver, tmp_path / "index.html")
    assert not any(each.is_displayed() for each in browser.all("#problems dd"))
    browser.command("Page.printToPDF")
    assert [each.text for each in browser.all("#problems dd")] == [
        "is damaged",
        "there is <no> speech in it",
    ]


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
