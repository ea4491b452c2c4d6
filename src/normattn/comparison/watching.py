"""A run's page on this machine alone, made again whenever the records have changed.

Three addresses, all of them read only: ``/`` holds the report in a frame and asks ``/state``, a
checksum over the records, every two seconds; ``/report`` is the page as `write_report` would write
it now, under its own policy. Nothing is written, and no part of an address ever becomes a path.
"""

import hashlib
import html
import socketserver
import sys
import traceback
from base64 import b64encode
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import ConfigError, InputError
from ._watched import Watched

_HOST = "127.0.0.1"
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'self'",  # beside the policy in the report itself
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """
:root { color-scheme: light dark; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; font: 14px system-ui, sans-serif; }
p { margin: 0; padding: 0.3em 1em; border-bottom: 1px solid GrayText; }
iframe { flex: 1; border: 0; width: 100%; }
"""
_SCRIPT = """
"use strict";
const frame = document.getElementById("report"), line = document.getElementById("line");
let shown = null, place = 0;
const back = () => frame.contentWindow.scrollTo(0, place);
frame.addEventListener("load", () => {
  back();
  const reached = frame.contentWindow.scrollY;  // less than asked for: charts come later
  setTimeout(() => { if (frame.contentWindow.scrollY === reached) back(); }, 400);
});
async function look() {
  try {
    const answer = await fetch("/state", { cache: "no-store" });
    const state = await answer.text();
    if (answer.ok && state !== shown) {
      place = shown === null ? 0 : frame.contentWindow.scrollY;
      shown = state;
      frame.contentWindow.location.replace("/report");
      line.textContent = `The records as of ${new Date().toLocaleTimeString()}`;
    }
  } catch {
    shown = null;
    line.textContent = "normattn watch has ended; this is the last state that it showed.";
  }
  setTimeout(look, 2000);
}
look();
"""


class Watcher(ThreadingHTTPServer):
    """Serves a folder's page to browsers of this machine.

    ::

        with Watcher("runs/demo") as watcher:
            print(watcher.url)
            watcher.serve_forever()

    It is bound to the loopback address, answers GET and HEAD only, and refuses requests that were
    made under another name than its own, as web pages from elsewhere make them (DNS rebinding).

    Args:
        folder: A run, a slimming or a salience run, finished or not.
        port: Where to listen; 0 takes any port that is free.

    Raises:
        RunError: ``folder`` is none of these.
        ConfigError: the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_port = False

    def __init__(self, folder: Path | str, port: int = 0) -> None:
        self.watched = Watched(folder)
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--port: expected a port that is free, got {port} ({error}). Give another one; "
                "0 takes any that is free."
            ) from error
        names = [f"{name}:{self.server_port}" for name in (_HOST, "localhost")]
        self.names = {*names, *((_HOST, "localhost") if self.server_port == 80 else ())}

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would look a name up as well
        self.server_name, self.server_port = _HOST, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the browser went away
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    @property
    def url(self) -> str:
        """Where browsers find it."""
        return f"http://{_HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Watcher
    server_version, sys_version = "normattn", ""
    timeout = 10  # seconds for a request to arrive

    def do_GET(self) -> None:
        if self.headers.get_all("Host") not in [[name] for name in self.server.names]:
            self._answer(HTTPStatus.FORBIDDEN, notice("Not the name of this server."))
            return
        match self.path.partition("?")[0]:
            case "/":
                self._answer(HTTPStatus.OK, *frame(self.server.watched.title))
            case "/report":
                self._report()
            case "/state":
                self._answer(HTTPStatus.OK, self.server.watched.state(), kind="text/plain")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, notice("There is nothing at this address."))

    do_HEAD = do_GET

    def _report(self) -> None:
        try:
            page, status = self.server.watched.page(), HTTPStatus.OK
        except (InputError, OSError) as error:
            page = notice(f"{error} This page looks again every two seconds.")
            status = HTTPStatus.NOT_FOUND
        except Exception as error:  # ours; the next state of the records may do
            traceback.print_exc()
            page = notice(f"The page could not be made ({type(error).__name__}: {error}).")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        self._answer(status, page)

    def _answer(self, status: int, text: str, policy: str = "", kind: str = "text/html") -> None:
        content = text.encode(errors="replace")
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        policies = {"Content-Security-Policy": policy} if policy else {}
        for name, value in {**_SAFE, **headers, **policies}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line every two seconds would hide what matters."""


def frame(title: str) -> tuple[str, str]:
    """Return the page around the report, and the policy that lets it do that and nothing else."""
    loader = PackageLoader("normattn.comparison", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("watch.html.j2").render(
        title=title, style=Markup(_STYLE), script=Markup(_SCRIPT)
    )
    policy = (
        f"default-src 'none'; script-src '{_checksum(_SCRIPT)}'; style-src '{_checksum(_STYLE)}'; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy


def notice(text: str) -> str:
    """Return a page with a sentence on it."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark"><title>normattn watch</title>'
        f"<p>{html.escape(text)}</p></html>"
    )


def _checksum(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
