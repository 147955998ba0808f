"""A model hub on loopback, as far as a pull needs one: it can break, lie and refuse, and it remembers.

Large files are answered with a redirect to a second server, as a hub redirects to its content network.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
LARGE = (".safetensors", ".gguf", ".onnx")
PIECE = 1 << 16
WEIGHTS = random.Random(1).randbytes(24 << 20)
"""Larger than two of the pieces that the hub's library reads: a broken transfer leaves something."""
BASE = {
    "model_index.json": b'{"_class_name": "X"}',
    "vae/model.safetensors": b"vae" * 500,
    "vae/config.json": b"{}",
}
QUANTS = {"tiny-Q6.gguf": WEIGHTS, "tiny-Q4.gguf": b"q4" * 700}
EXTRA = {"edit.safetensors": b"edit" * 400}


def commit_of(files: dict[str, bytes]) -> str:
    """A commit's name that depends on its content."""
    told = sorted((name, sum_of(content)) for name, content in files.items())
    return hashlib.sha1(repr(told).encode()).hexdigest()


@cache
def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    server: str
    path: str
    range: str | None
    authorized: bool
    agent: str


@dataclass
class LoopbackHub:
    """What it holds and how it misbehaves. ``url`` is the value for ``HF_ENDPOINT``."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    lies: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    network_url: str = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit and make it the newest."""
        name = commit_of(files)
        self.repositories.setdefault(repository, {})[name] = files
        self.heads[repository] = name
        return name

    def fetched(self) -> list[str]:
        """Names of the files that were asked for, in order, without those only redirected."""
        paths = [unquote(asked.path) for asked in self.asked]
        served = [path for path in paths if "/resolve/" in path and not path.endswith(LARGE)]
        return [path.split("/resolve/")[1].split("/", 1)[1] for path in served] + [
            path.split("/", 3)[3] for path in paths if path.startswith("/blob/")
        ]


def sibling(name: str, content: bytes) -> dict[str, Any]:
    told = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
    if name.endswith(LARGE):
        told["lfs"] = {"sha256": sum_of(content), "size": len(content), "pointerSize": 134}
    return told


class Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    server_name: str

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.hub.asked.append(
            Asked(
                self.server_name,
                path,
                self.headers.get("Range"),
                authorized,
                str(self.headers.get("User-Agent")),
            )
        )
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3], authorized)
        elif match := re.fullmatch(r"/blob/([0-9a-f]+)/(.+)", path):
            self._content(match[2], self._blob(match[1]))
        else:
            self._refuse(404, "EntryNotFound")

    def _files(self, repository: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        commits = self.hub.repositories.get(repository)
        if commits is None:
            self._refuse(404, "RepoNotFound")
            return None
        name = self.hub.heads[repository] if revision in (None, "main") else revision
        if name not in commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return str(name), commits[str(name)]

    def _info(self, repository: str, revision: str | None) -> None:
        if found := self._files(repository, revision):
            siblings = [sibling(name, content) for name, content in found[1].items()]
            told = {"id": repository, "sha": found[0], "siblings": siblings, "private": False, "tags": []}
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repository: str, revision: str, name: str, authorized: bool) -> None:
        found = self._files(repository, revision)
        if found is None:
            return
        if repository in self.hub.gated and not authorized:
            self._refuse(401, "GatedRepo")
        elif name not in found[1]:
            self._refuse(404, "EntryNotFound")
        elif name.endswith(LARGE):
            sha256 = sum_of(found[1][name])
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(found[1][name]))}
            place = f"{self.hub.network_url}/blob/{sha256}/{name}"
            self._answer(302, b"", {"Location": place, "X-Repo-Commit": found[0], **linked})
        else:
            self._content(
                name, found[1][name], {"X-Repo-Commit": found[0], "ETag": f'"{blob_id(found[1][name])}"'}
            )

    def _blob(self, sha256: str) -> bytes:
        everything = (
            c for commits in self.hub.repositories.values() for f in commits.values() for c in f.values()
        )
        return next(content for content in everything if sum_of(content) == sha256)

    def _content(self, name: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        if name in self.hub.down:
            self._refuse(503, "")
            return
        content = self.hub.lies.get(name, content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted and self.hub.ranges else 0
        sent = {**(headers or {}), "Accept-Ranges": "bytes"}
        if start:
            sent["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        breaks = self.hub.breaks.get(name)
        stop = breaks.pop(0) if breaks else len(content)
        self._answer(206 if start else 200, content[start:], sent, stop - start)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        body = body if stop is None else body[:stop]
        for at in range(0, len(body), PIECE):
            self.wfile.write(body[at : at + PIECE])
        self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code} if code else {})


@contextmanager
def serve() -> Iterator[LoopbackHub]:
    """A hub and its content network on two ports of 127.0.0.1, until the block ends."""
    hub = LoopbackHub()
    servers = []
    for name in ("hub", "network"):
        handler = type("Bound", (Handler,), {"hub": hub, "server_name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
    hub.url, hub.network_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
