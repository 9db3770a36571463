"""A stand-in for Google Cloud Storage's XML API in memory; PyPI's emulators speak only its JSON API."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from time import gmtime, strftime, time
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

XML = '<?xml version="1.0" encoding="UTF-8"?>'


class Stored(NamedTuple):
    data: bytes
    generation: int
    time: float


class Handler(BaseHTTPRequestHandler):
    """One request; the server's lock makes it atomic, as Google promises."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do(self) -> None:
        url = urlsplit(self.path)
        _, bucket, name = (*unquote(url.path).split("/", 2), "")[:3]
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            if bucket not in self.server.buckets:
                return self.reply(404, f"{XML}<Error><Code>NoSuchBucket</Code></Error>".encode())
            objects = self.server.buckets[bucket]
            if not name:
                return self.list(objects, query.get("prefix", ""))
            if "uploads" in query or "uploadId" in query:
                return self.multipart(objects, name, query, body)
            if self.command == "PUT":
                return self.put(objects, name, body)
            if name not in objects:
                return self.reply(404, f"{XML}<Error><Code>NoSuchKey</Code></Error>".encode())
            if self.command == "DELETE":
                del objects[name]
                return self.reply(204)
            return self.reply(200, objects[name].data, objects[name])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def put(self, objects: dict[str, Stored], name: str, body: bytes) -> None:
        expected = self.headers.get("x-goog-if-generation-match")
        current = objects[name].generation if name in objects else 0
        if expected is not None and int(expected) != current:
            return self.reply(412, f"{XML}<Error><Code>PreconditionFailed</Code></Error>".encode())
        objects[name] = Stored(body, next(self.server.generations), time())
        return self.reply(200, b"", objects[name])

    def multipart(self, objects: dict[str, Stored], name: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            upload = str(next(self.server.generations))
            self.server.uploads[upload] = {}
            facts = f"<Bucket>b</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
            answer = f"{XML}<InitiateMultipartUploadResult>{facts}</InitiateMultipartUploadResult>"
            return self.reply(200, answer.encode())
        parts = self.server.uploads[query["uploadId"]]
        if self.command == "PUT":
            parts[int(query["partNumber"])] = body
            return self.reply(200, b"", Stored(body, 0, time()))
        objects[name] = Stored(
            b"".join(parts[number] for number in sorted(parts)), next(self.server.generations), time()
        )
        answer = f"{XML}<CompleteMultipartUploadResult><ETag>&quot;x&quot;</ETag></CompleteMultipartUploadResult>"
        return self.reply(200, answer.encode(), objects[name])

    def list(self, objects: dict[str, Stored], prefix: str) -> None:
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(entry.data)}</Size><ETag>&quot;{entry.generation}&quot;</ETag>"
            f"<LastModified>{strftime('%Y-%m-%dT%H:%M:%S', gmtime(entry.time))}.{int(entry.time % 1 * 1000):03d}Z"
            "</LastModified></Contents>"
            for name, entry in sorted(objects.items())
            if name.startswith(prefix)
        )
        self.reply(200, f"{XML}<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode())

    def reply(self, status: int, body: bytes = b"", entry: Stored | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if entry is not None:
            self.send_header("ETag", f'"{hashlib.md5(entry.data).hexdigest()}"')
            self.send_header("x-goog-generation", str(entry.generation))
            self.send_header("Last-Modified", formatdate(int(entry.time), usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    """Buckets by name, their objects by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.generations = threading.Lock(), count(1)
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}


@contextmanager
def gcs_server() -> Iterator[Server]:
    """A server that runs."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
