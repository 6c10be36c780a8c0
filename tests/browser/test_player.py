"""The real player loads our exports and computes what the model does.

Needs Node and `npm ci --ignore-scripts` in this folder; the page needs Chromium, too. Without them
the tests are skipped, or fail if MUSICVAE_REQUIRE_BROWSER is set.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from experiments import browser_page
from experiments.benchmarks.interop import player
from musicvae_jax import MusicVAE
from musicvae_jax.interop import magentajs
from tests.support.browser import find_chromium, require
from tests.support.model_cases import Case, player_case

MODELS = (("mel_2bar", "flat"), ("drums_2bar", "flat"), ("mel_16bar", "hier"))


@pytest.fixture(scope="module")
def node() -> None:
    """Require the program and the player."""
    require(shutil.which("node") is not None, "the program node")
    require(player.PLAYER.is_dir(), "the player (npm ci --ignore-scripts in tests/browser)")


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser, if it is there."""
    return find_chromium()


def request(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Ask for what the model computes from its tokens and points."""
    return player.request(folder, case.task, np.asarray(case.tokens), np.asarray(case.z))


@pytest.mark.slow
@pytest.mark.usefixtures("node")
def test_the_player_computes_what_the_model_does(tmp_path: pathlib.Path) -> None:
    cases = [player_case(*name) for name in MODELS]
    requests = []
    for number, case in enumerate(cases):
        magentajs.write(tmp_path / str(number), case.config, case.params)
        requests.append(request(case, tmp_path / str(number)))
    for case, answer in zip(cases, player.ask(requests, tmp_path), strict=True):
        mu = case.encode(case.params, case.tokens).mu
        np.testing.assert_allclose(answer["mu"], mu, atol=1e-5)
        greedy = np.asarray(case.greedy(case.params, case.z))
        np.testing.assert_array_equal(np.array(answer["outputs"])[..., 0], greedy)
        # Two sampled, three interpolated and two similar rows.
        assert answer["steps"] == [case.task.num_steps] * 7


@pytest.mark.slow
@pytest.mark.usefixtures("node")
def test_the_player_computes_what_a_trained_model_does() -> None:
    vae = MusicVAE.from_pretrained("mel_2bar")
    rows = vae.decode(np.random.default_rng(0).normal(size=(4, vae.z_size)))
    found = player.compare(vae, rows)
    assert found.mu_error < 1e-5
    assert (found.equal_rows, found.rows, found.complete) == (4, 4, 7)


# The player's own converter moves mu of a random model by up to 5e-4 (float16), 2e-5 (uint16) and
# 5e-3 (uint8). These weights are larger.
@pytest.mark.slow
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("quantize", "near"), [("float16", 5e-3), ("uint16", 5e-4), ("uint8", 1e-1)]
)
def test_the_player_reads_quantised_weights(
    quantize: str, near: float, tmp_path: pathlib.Path
) -> None:
    case = player_case("mel_2bar", "flat")
    magentajs.write(tmp_path / "m", case.config, case.params, quantize)
    (answer,) = player.ask([request(case, tmp_path / "m")], tmp_path)
    mu = np.asarray(case.encode(case.params, case.tokens).mu)
    error = np.abs(np.array(answer["mu"]) - mu).max()
    assert 0.0 < error <= near


@pytest.mark.usefixtures("node")
def test_the_vendored_script_is_the_packages() -> None:
    vendored = pathlib.Path(browser_page.__file__).parent / "vendor"
    content = (vendored / "magentamusic.js").read_bytes()
    assert content == (player.PLAYER / "dist" / "magentamusic.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (vendored / "LICENSES.txt").read_text()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mel_2bar", "drums_2bar"])
def test_the_page_samples_interpolates_and_sounds(
    name: str, chromium: str, tmp_path: pathlib.Path
) -> None:
    vae = MusicVAE.from_pretrained(name)
    magentajs.write(tmp_path / "m", vae.config, vae.params)
    browser_page.add_page(tmp_path / "m")
    requested: list[str] = []
    errors: list[str] = []
    with served(tmp_path / "m") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)  # a slow machine needs time; a broken page must end
        page.on("request", lambda asked: requested.append(asked.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_text("The model is loaded").wait_for()
        page.get_by_role("button", name="Sample").click()
        page.get_by_text("4 results").wait_for()
        assert page.locator(".roll rect.note").count() > 0
        first = page.locator("#results").inner_html()
        page.get_by_role("button", name="Interpolate").click()
        page.wait_for_function(
            "html => document.querySelector('#results').innerHTML !== html", arg=first
        )
        page.get_by_role("button", name="Play 1").click()
        page.wait_for_function("document.querySelector('#level').value > 0.001")
        page.get_by_role("button", name="Stop").click()
        browser.close()
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in requested), requested
    names = {path.name for path in (tmp_path / "m").glob("group1-shard*")}
    assert {address + name for name in names | {"config.json"}} <= set(requested)
