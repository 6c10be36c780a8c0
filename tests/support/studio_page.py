"""A studio with tiny untrained models on loopback, and what browser tests ask its page."""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from experiments.studio import static_files
from experiments.studio.app import make_app
from experiments.studio.models.forecasters import ForecasterModel
from experiments.studio.models.latent import StudioModel
from experiments.studio.models.played import PlayedModel
from experiments.studio.models.worker import Worker
from experiments.studio.safety import Access
from musicvae_jax.latent import attributes
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.tasks import get_task
from tests.support.model_cases import random_params

TASKS = ("drums_2bar", "mel_2bar")
FORECASTER = "forecaster"
TIMEOUT_MS = 120_000  # a slow machine needs time; a broken page must end
# The loudest sample that the analyser holds now.
LEVEL = """() => {
  const analyser = window.studio.analyser;
  if (!analyser) return 0;
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return Math.max(...samples.map(Math.abs));
}"""


def make_model(task_name: str, worker: Worker) -> StudioModel:
    """Make a tiny untrained model with a random vector for each attribute, named as its task."""
    task = get_task(task_name)
    sizes = {"encoder_sizes": (8,), "decoder_sizes": (8,), "z_size": 4, "init": "default"}
    config = task.config.replace(**sizes, dtype="float32")
    rng = np.random.default_rng(0)
    params = random_params(build_model(config), rng)
    vectors = {name: rng.normal(size=4).astype(np.float32) for name in attributes.names(task)}
    return StudioModel(task_name, MusicVAE(config, params, attributes=vectors), worker)


def make_forecaster(worker: Worker) -> ForecasterModel:
    """Make a tiny untrained forecaster of drums, a model without a latent space."""
    task = get_task("drums_2bar")
    config = task.config.replace(
        architecture="lstm_forecaster", decoder_sizes=(8,), dtype="float32"
    )
    model = build_model(config)
    assert isinstance(model, Forecaster)
    params = random_params(model, np.random.default_rng(0))
    return ForecasterModel(FORECASTER, config, params, model, worker)


@contextlib.contextmanager
def serve(task_names: tuple[str, ...], soundfont: pathlib.Path | None = None) -> Iterator[str]:
    """Serve a model of each task, a forecaster and the page from a thread; yield the address."""
    worker = Worker()
    models: dict[str, PlayedModel] = {name: make_model(name, worker) for name in task_names}
    models[FORECASTER] = make_forecaster(worker)
    app = make_app(models, static_files.load(soundfont=soundfont), Access())
    # A browser may keep connections open: the server must not wait for them when it ends.
    config = uvicorn.Config(
        app,
        port=0,
        lifespan="off",
        log_level="error",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + TIMEOUT_MS / 1000
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at its start"
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_MS / 1000)
        assert not thread.is_alive(), "the server does not end"


def wait(page: Page, condition: str, argument: Any = None) -> None:
    """Wait until JavaScript is true; `Page.wait_for_function` needs a policy that allows eval."""
    end = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


@contextlib.contextmanager
def watched_page(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """Open the studio in a new page, and yield it with the list of the addresses it asks for.

    At the end the page must have asked nobody else and logged no error.
    """
    errors: list[str] = []
    requested: list[str] = []

    def log(message: ConsoleMessage) -> None:
        # Chromium logs every status 4xx; the page shows the reason of the one that a test causes.
        if message.type == "error" and "status of 422" not in message.text:
            errors.append(message.text)

    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    opened = context.new_page()
    opened.on("console", log)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    context.on("request", lambda asked: requested.append(asked.url))
    open_page(opened, address)
    yield opened, requested
    context.close()
    assert errors == []
    assert [url for url in requested if not url.startswith((address, "blob:", "data:"))] == []


def open_page(page: Page, address: str) -> None:
    """Open the studio and wait until the palette is there."""
    page.goto(address)
    wait(page, "window.studio?.app.state.now?.label.startsWith('Blend')")


def state(page: Page) -> dict[str, Any]:
    """Return the state of the page."""
    found: dict[str, Any] = page.evaluate("window.studio.app.state")
    return found


def tokens(page: Page) -> list[int]:
    """Return the tokens of the current piece."""
    found: list[int] = state(page)["now"]["tokens"]
    return found


def show(page: Page, view: str) -> None:
    """Change to a view."""
    page.get_by_role("tab", name=view).click()


def use_model(page: Page, name: str) -> None:
    """Change the model and wait until its palette is there."""
    page.get_by_label("Model", exact=True).select_option(name)
    wait(
        page,
        "(name) => studio.app.state.model === name"
        " && studio.app.state.now?.label.startsWith('Blend')",
        name,
    )


def type_sketch(page: Page, text: str) -> None:
    """Type a piece in the view Sketch."""
    show(page, "Sketch")
    page.get_by_label("Or type it").fill(text)
    page.get_by_label("Or type it").press("Enter")
