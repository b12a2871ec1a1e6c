"""Small folders of recordings, and a browser that shows the report's page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from noise import write_noise


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Six recordings: two folders and the top; several rates; one of two channels, one short."""
    folder = tmp_path / "recordings"
    write_noise(folder / "a" / "one.wav")
    write_noise(folder / "a" / "two.flac", 0.7, 24_000)
    write_noise(folder / "b" / "one.wav", 0.4, 22_050)
    write_noise(folder / "b" / "stereo.wav", 0.5, 16_000, channels=2)
    write_noise(folder / "b" / "short.wav", 0.2)
    write_noise(folder / "top.wav", 0.6, 48_000)
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory) -> Iterator:
    """A headless Chromium; tests that need it are skipped where there is none."""
    for package in ("jinja2", "matplotlib", "scipy", "selenium"):
        pytest.importorskip(package)
    import chromium
    import page_browser

    if not chromium.INSTALLED:
        pytest.skip("no chromium and chromedriver are installed")
    driver = page_browser.start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def page_file(tmp_path_factory) -> Path:
    """The page of ``sounding_report``, with players for four of its five recordings."""
    from page_reports import sounding_report

    from simvq_audio.evaluation.report.page import write_page

    folder = tmp_path_factory.mktemp("page")
    write_page(sounding_report(folder), folder / "index.html", players=4)
    return folder / "index.html"


@pytest.fixture
def browser(driver, page_file: Path) -> Iterator:
    """That page, opened; at the end it must have logged no error and asked for nothing else."""
    from page_browser import Browser

    browser = Browser(driver, page_file)
    yield browser
    assert browser.errors() == []
    requests = [url for url in browser.requests() if not url.startswith("data:")]
    assert requests == [page_file.as_uri()]
