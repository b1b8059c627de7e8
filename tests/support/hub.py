"""A hub for tests: the endpoints that `huggingface_hub` uses to look at a repository and to bring its files.

Files above `LFS_BYTES` come from another origin, as with the real one: the hub answers with a link and their digest.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

from tests.support.https_files import FileServer

LFS_BYTES = 1000


@dataclass
class Repository:
    """One repository."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    branches: tuple[str, ...] = ("main",)
    token: str = ""
    """Who may read it; empty: everybody."""
    is_gated: bool = False
    """Whether those without the token see that it is there, but not its files."""


@dataclass
class Hub:
    """What it has, and what it was asked."""

    downloads: FileServer
    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """`owner/name` of a model, `datasets/owner/name` of a data set."""
    status: int = 0
    """Answered to everything when not 0."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, authorization)."""

    def find(self, path: str) -> tuple[str, Repository | None, str]:
        """Returns name, repository and the rest of a path without a leading slash."""
        for name, repository in self.repositories.items():
            if path == name or path.startswith(name + "/"):
                return name, repository, path[len(name) :].lstrip("/")
        return "", None, ""


@contextmanager
def serving_hub(downloads: FileServer) -> Iterator[Hub]:
    """Serves a hub while the block runs; large files come from `downloads`."""
    hub = Hub(downloads)
    with ExitStack() as stack:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
        server.daemon_threads = True
        stack.callback(server.server_close)
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        stack.callback(server.shutdown)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        authorization = self.headers.get("authorization", "")
        self.hub.asked.append((self.command, path, authorization))
        if self.hub.status:
            self._answer(self.hub.status, b"{}")
            return
        is_api = path.startswith("api/")
        looked_up = path.removeprefix("api/").removeprefix("models/")
        _, repository, rest = self.hub.find(looked_up)
        is_known = repository and (not repository.token or authorization == f"Bearer {repository.token}")
        if repository is None or (not is_known and not repository.is_gated):
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif is_api:
            self._info(repository, rest)
        elif not is_known:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            self._file(repository, rest)

    def _info(self, repository: Repository, rest: str) -> None:
        revision = rest.removeprefix("revision/") or "main"
        if revision not in (*repository.branches, repository.commit):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            | ({"lfs": _lfs(content)} if len(content) > LFS_BYTES else {})
            for name, content in repository.files.items()
        ]
        self._answer(200, json.dumps({"id": "x/y", "sha": repository.commit, "siblings": siblings}).encode())

    def _file(self, repository: Repository, rest: str) -> None:
        _, revision, name = rest.split("/", 2)
        content = repository.files.get(name)
        if revision != repository.commit or content is None:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if len(content) > LFS_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            place = f"/lfs/{digest}"
            self.hub.downloads.files.setdefault(place, content)
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self._answer(302, b"", headers | {"Location": self.hub.downloads.url(place)})
        else:
            self._answer(200, content, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _lfs(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
