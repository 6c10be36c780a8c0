"""One browser and one studio with tiny untrained models for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import find_chromium
from tests.support.studio_page import TASKS, serve, watched_page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    program = find_chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def address(browser: Browser) -> Iterator[str]:
    """One server for all tests."""
    del browser
    with serve(TASKS) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A new page with the first model's palette; it must ask nobody else, and log no error."""
    with watched_page(browser, address) as (opened, _):
        yield opened
