"""A search against a tracking server that wants a password: it stands nowhere, and stdout holds what is promised."""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.commands import run_command, run_tune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
USER, SECRET = "me", "s3cr3t-WORD"
HOP = {"authorization", "connection", "content-length", "date", "host", "server", "transfer-encoding"}


class Guard(BaseHTTPRequestHandler):
    """Passes requests with the password on to MLflow, as a web server before it does."""

    protocol_version = "HTTP/1.1"
    upstream = ""

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(f'{USER}:{SECRET}'.encode()).decode()}":
            self.answer(401, [], b"no entry")
            return

        connection = http.client.HTTPConnection(self.upstream)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        connection.request(self.command, self.path, body, kept | {"Host": self.upstream})
        answer = connection.getresponse()
        self.answer(answer.status, answer.getheaders(), answer.read())
        connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def guarded(upstream: str) -> Iterator[str]:
    """The address of a guard before a server."""
    handler = type("GuardOf", (Guard,), {"upstream": upstream.removeprefix("http://")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_password_stands_nowhere_and_stdout_holds_what_is_promised(
    tmp_path: Path, space_file: Callable[..., Path], mlflow_ui: Callable[[Path], AbstractContextManager[str]]
) -> None:
    (tmp_path / "server").mkdir()
    work, temporary = tmp_path / "50%20off a#b w?z ü", tmp_path / ("of-a-job-" * 9)
    work.mkdir()
    temporary.mkdir()
    short = Path(f"/tmp/faar_ray-user{os.getuid()}/ray")  # where Ray is then
    sessions = set(short.glob("session_*"))
    space_file(work / "space.yaml", budget={"trials": 1}, base={"optim": {"epochs": 1}})
    env = {"TMPDIR": str(temporary), "MLFLOW_TRACKING_URI": ""}

    with mlflow_ui(tmp_path / "server") as upstream, guarded(upstream) as address:
        given = f"tracking.uri=http://{USER}:{SECRET}@{address}"
        first = run_tune(work, given, "-q", env=env)
        assert first.returncode == 0, first.stderr
        page = f"http://{address}/#/experiments/1"
        assert f"\nall runs     {page}\n" in first.stdout
        assert "View" not in first.stdout
        assert "mlflow ui" not in first.stdout
        assert first.stdout.lstrip().startswith("delta_m")

        more = ["budget.trials=2", "--json"]
        refused = run_tune(work, "--resume", *more, env=env)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold user and password" in refused.stderr
        known = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SECRET}
        resumed = run_tune(work, "--resume", *more, env=env | known)
        assert resumed.returncode == 0, resumed.stderr
        (line,) = resumed.stdout.splitlines()
        assert json.loads(line)["tracking_uri"] == f"http://{address}"
        report = run_command("report", work, "tiny", env=env | known)
        assert (report.returncode, report.stdout, report.stderr) == (0, "runs/tiny/report/index.html\n", "")

        runs = MlflowClient(upstream).search_runs(["1"])
        assert sorted(run.info.status for run in runs) == ["FINISHED"] * 3

    outputs = [text for done in (first, refused, resumed, report) for text in (done.stdout, done.stderr)]
    assert not [text for text in outputs if SECRET in text]
    places = [work, temporary, tmp_path / "server", *(set(short.glob("session_*")) - sessions)]
    assert len(places) > 3
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
