"""Fixtures for all tests: where the shared folder with the golden numbers is."""

import http.server
import os
import threading
from pathlib import Path

import pytest

import aumcli  # noqa: F401  before torch: its threads sleep soon while others compute

if os.environ.get("TRITON_INTERPRET") == "1":
    import interpreter  # noqa: F401  before aumcli.core.kernels looks whether Triton interprets

os.environ.setdefault(
    "AUM_DEBUG", "1"
)  # what nobody foresaw fails a test with its stack trace, in processes of their own too

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository (or $AUM_SHARED) with semantics, corpora and golden numbers."""
    folder = Path(os.environ.get("AUM_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: set AUM_SHARED to the folder that holds golden/")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Weights, inputs and the outputs that the authors' code gives for them (golden/README.md)."""
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: the golden numbers are not part of this checkout")
    return folder


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
