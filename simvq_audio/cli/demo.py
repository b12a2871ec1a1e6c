"""``demo``: the page that codes in the browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from simvq_audio.cli.console import CommandError, print_message
from simvq_audio.cli.options import ModelOption


def demo(
    model: ModelOption = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")
    ] = 8765,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to serve at. Others than this machine reach 0.0.0.0, but browsers give "
            "them no microphone without HTTPS.",
        ),
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Show the page in the browser.")
    ] = True,
    install: Annotated[
        bool,
        typer.Option("--install", help="Fetch onnxruntime-web by npm (14 MB, once), then end."),
    ] = False,
    install_from: Annotated[
        Path | None,
        typer.Option(
            "--install-from",
            metavar="FILE",
            help="Take onnxruntime-web from what 'npm pack' wrote, then end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Code and decode in the browser: record, see, hear, save. Works without a network."""
    from simvq_audio.demo import runtime

    if install or install_from is not None:
        print_message(f"{runtime.PACKAGE} is in {runtime.install(install_from)}")
        return
    if not runtime.is_installed():
        raise CommandError(
            f"the page needs {runtime.PACKAGE}; fetch it once with: simvq-audio demo --install"
        )
    from simvq_audio.demo.server import make_server

    try:
        server = make_server(model, host, port)
    except OSError as error:
        raise CommandError(
            f"cannot serve at {host}:{port} ({error.strerror}); choose another --port"
        ) from error
    with server:
        address = f"http://{host}:{server.server_port}/"
        print_message(f"{address} (Ctrl-C ends)")
        if browser:
            import webbrowser

            webbrowser.open(address)
        # Ctrl-C is how this ends.
        with suppress(KeyboardInterrupt):
            server.serve_forever()
