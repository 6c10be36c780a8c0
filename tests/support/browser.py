"""The browser of the tests, and what to do where it is missing."""

from __future__ import annotations

import os
import shutil

import pytest


def require(found: bool, what: str) -> None:
    """Skip the test, or let it fail where the browser tests must run."""
    if found:
        return
    if os.environ.get("MUSICVAE_REQUIRE_BROWSER"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def find_chromium() -> str:
    """Return the program of the browser; without it the test is skipped or fails."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    require(program is not None, "the program chromium")
    return str(program)
