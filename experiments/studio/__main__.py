"""Play a model's latent space in a browser, on this machine.

Example:
  python -m experiments.studio --open_browser
  python -m experiments.studio --model=drums_2bar --run_dir=runs/drums

Without --model and --run_dir it plays all models of the package. Prints the address of the page.
The page and the server talk to each other only; nothing is stored and nothing leaves this machine.
Programs are compiled in the background after the start, so that the first requests are slower.
Ctrl-C ends it at once.

The server listens on this machine only. --host=0.0.0.0 lets others on the network in: whoever has
the address that is printed, which holds a token.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import ipaddress
import secrets
import socket
import threading
import webbrowser

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.render.audio import check_soundfont_file
from experiments.cli import compile_cache
from experiments.cli.run_options import check_ranges
from experiments.studio import ending, static_files, uploads
from experiments.studio.models import warm_up
from experiments.studio.models.loading import load
from experiments.studio.models.played import PlayedModel
from experiments.studio.models.worker import Worker
from experiments.studio.safety import LOOPBACK_NAMES, Access
from musicvae_jax.config import InputError
from musicvae_jax.latent.fitted_prior import STANDARD
from musicvae_jax.pretrained import packaged

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 20
BACKLOG = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which models to play, with which sound, and where to listen."""

    models: tuple[str, ...] = option(
        (), flag="model", help="Model of this package; may be repeated."
    )
    run_dirs: tuple[str, ...] = option(
        (), flag="run_dir", help="Run folder of a model; may be repeated."
    )
    port: int = option(8765, help="Port to listen on; 0 takes a free one.")
    host: str = option(LOOPBACK, help="Address to listen on; others than the default need a token.")
    soundfont: str | None = option(
        None, help="SoundFont (.sf2, .sf3) to play with. Default: a synthesiser without samples."
    )
    open_browser: bool = option(False, help="Open the page in the browser.")

    def __post_init__(self) -> None:
        """Check what needs no model."""
        check_ranges(self, port=(0, 65535))
        if self.soundfont is not None:
            check_soundfont_file(self.soundfont)
        if not (self.names or self.run_dirs):
            raise InputError("run_dir: --run_dir is needed, this package holds no model")

    @property
    def names(self) -> tuple[str, ...]:
        """Models of the package: those given, or all if no run is given either."""
        return self.models or (() if self.run_dirs else tuple(packaged.names()))


def check_extra() -> None:
    """Check that the web server is installed.

    Raises:
      InputError: it is not.
    """
    if not all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn")):
        raise InputError(
            "the studio needs starlette and uvicorn: pip install 'musicvae-jax[studio]', or "
            "pip install -e '.[studio]' in a clone"
        )


def listen(host: str, port: int) -> socket.socket:
    """Open the socket.

    Raises:
      InputError: the port is taken, the message names one that is free; or the address is not
        this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except PermissionError:
        raise InputError(f"port: {port} needs the rights of an administrator; try 8765") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise InputError(f"host: {host!r} is not an address of this machine") from None
        for other in range(port + 1, min(port + 1 + PORTS_TO_TRY, 65536)):
            try:
                socket.create_server((host, other), family=family).close()
            except OSError:
                continue
            raise InputError(f"port: {port} is in use; try --port={other}") from None
        raise InputError(f"port: {port} is in use, as are the next {PORTS_TO_TRY}") from None
    # Connections take it over. Without it, a reply waits 40 ms for the receipt of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def access_of(host: str, port: int) -> Access:
    """Decide who may ask: on loopback everyone, beyond it whoever has a new token."""
    if is_loopback(host):
        return Access(names=(*LOOPBACK_NAMES, host))
    names = (*LOOPBACK_NAMES, host, socket.gethostname().lower())
    return Access(names, True, secrets.token_urlsafe(24), f"studio_{port}")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int, token: str | None) -> str:
    """Return the address to open."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")


def load_models(options: Options) -> dict[str, PlayedModel]:
    """Load all models, and print a line for each."""
    models: dict[str, PlayedModel] = {}
    for model in load(options.names, options.run_dirs, Worker()):
        models[model.name] = model
        about = model.describe()
        latent = "no latent space"
        if model.prior is not None:
            prior = "N(0, I)" if model.prior == STANDARD else model.prior
            latent = f"prior {prior}, {len(model.changeable)} attribute vectors"
        size = f"{about['parameters'] / 1e6:.2f} million parameters"
        print(f"{model.name}: {about['title']}, {size}, {latent}", flush=True)
    return models


def main(options: Options) -> None:
    """Load the models and serve the page."""
    check_extra()
    ending.end_on_signals()
    compile_cache.switch_on()
    with listen(options.host, options.port) as listening:
        port = listening.getsockname()[1]
        access = access_of(options.host, port)
        models = load_models(options)
        from experiments.studio import app

        application = app.make_app(models, static_files.load(soundfont=options.soundfont), access)
        if access.token is not None:
            print("warning: others on the network can use the studio with this address")
        where = address(options.host, port, access.token)
        print(f"studio: {where}  (Ctrl-C ends it)", flush=True)
        threading.Thread(target=uploads.warm_up, daemon=True).start()
        warm_up.start(models.values())
        if options.open_browser:
            threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()
        app.serve(application, listening)


if __name__ == "__main__":
    cli.run(main, Options)
