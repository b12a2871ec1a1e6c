"""Serves the page, the graphs of one model and onnxruntime-web; nothing else."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from simvq_audio.demo.runtime import FILES, runtime_folder
from simvq_audio.onnx.model import DESCRIPTION_FILE, load
from simvq_audio.prior import prior_file_for_codes

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # The browser refuses requests to any other host.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; "
        "worker-src 'self' blob:; connect-src 'self' blob:; media-src blob:; img-src 'self' data:"
    ),
    # These two allow the page shared memory, which several threads need.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def make_server(model: str | None, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet.

    Args:
        model: None for the embedded one, or as for ``simvq_audio.onnx.Codec.load``.
        port: 0 for any that is free; ``server_port`` tells.

    Raises:
        ModelError: the model cannot be found or has no graph.
        OSError: the address cannot be bound.
    """
    pages = _pages(model)

    class Handler(_Handler):
        content = pages

    return ThreadingHTTPServer((host, port), Handler)


def _pages(model: str | None) -> dict[str, Callable[[], bytes]]:
    """What is served: how to get the bytes of each path."""
    description, graphs = load(model)
    pages: dict[str, Callable[[], bytes]] = {
        f"/{page.name}": page.read_bytes
        for page in files("simvq_audio.demo").joinpath("page").iterdir()
        if page.is_file()
    }
    pages["/"] = pages["/index.html"]
    for name, graph in graphs.items():
        pages[f"/model/{name}"] = lambda graph=graph: graph  # type: ignore[misc]
    pages[f"/model/{DESCRIPTION_FILE}"] = description.to_json().encode
    prior = prior_file_for_codes(description.codes_id)
    if prior is not None:
        pages["/model/prior.safetensors"] = prior.read_bytes
    for name in FILES:
        pages[f"/runtime/{name}"] = (runtime_folder() / name).read_bytes
    return pages


class _Handler(BaseHTTPRequestHandler):
    content: dict[str, Callable[[], bytes]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        try:
            body = self.content[path]()
        except (KeyError, OSError):
            self.send_error(404)
            return
        suffix = Path(path).suffix or ".html"
        self.send_response(200)
        self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Log nothing: all requests come from the user's own browser."""
