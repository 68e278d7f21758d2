"""A web server for tests of downloads."""

import http.server
import os
import threading

import pytest


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that knows ranges at /good, ignores them at /plain, and breaks off at /broken."""
    content = os.urandom(700_000)
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            begin = int(asked[-1][6:-1]) if asked[-1] and self.path == "/good" else 0
            if self.path == "/missing":
                return self.send_error(404)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : 400_000 if self.path == "/broken" else None])

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", content, asked
        running.shutdown()
