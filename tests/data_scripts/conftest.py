"""A user at a script, and a server that behaves badly."""

import http.server
import importlib
import sys
import threading
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data_scripts"
OWN = ("acdc", "chd", "fetch", "hvsmr", "multipart", "phantom", "shared", "sunnybrook", "unpack")


@pytest.fixture
def load(monkeypatch):
    """A script or helper of ``data_scripts/`` as a module of its own, with its constants."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def script(load, monkeypatch):
    """Run a script's main with arguments, in this process."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        load(name).main()

    return run


class Server:
    """Files under their names; each request follows the next of ``behaviours``, the last one for ever."""

    def __init__(self):
        self.files, self.behaviours, self.requests = {}, ["whole"], []
        self.ranges, self.types, self.etag, self.sent = True, {}, '"one"', 0
        self.states_length = True  # where a range begins behind the end of the file
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.http.server_port}/{name}"

    def answer(self, handler):
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        if isinstance(behaviour, int):
            handler.send_error(behaviour)
            return
        body = self.files[handler.path.strip("/").partition("?")[0]]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        same = handler.headers.get("If-Range", self.etag) == self.etag
        if asked and self.ranges and same and start >= len(body):
            handler.send_response(416)
            if self.states_length:
                handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = start if self.ranges and same else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if behaviour == "chunked":
            self._chunked(handler, body)
            return
        handler.send_header("Content-Length", str(len(body) - start))
        handler.send_header("Content-Type", self.types.get(handler.path.strip("/"), "application/octet-stream"))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        self._send(handler, body[start:], behaviour)

    def _send(self, handler, rest, behaviour):
        pieces = {"whole": [rest], "cut": [rest[: len(rest) // 2]], "hang": [rest[:100], None],
                  "slow": [rest[i : i + 1] for i in range(100)]}[behaviour]  # fmt: skip
        for piece in pieces:
            try:
                if piece is None:
                    time.sleep(3)
                else:
                    handler.wfile.write(piece)
                    self.sent += len(piece)
                time.sleep(0.02 if behaviour == "slow" else 0)
            except OSError:  # the other side has given up
                return
        handler.close_connection = True

    def _chunked(self, handler, body):
        """As the server of ACDC does it: no length, no checksum, cut in the middle of a piece."""
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(body):x}\r\n".encode() + body[: len(body) // 2])
        handler.close_connection = True


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
