"""A server on loopback that speaks the few routes of the Hugging Face Hub that data sets are read by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from listening import listening


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Hub:
    """One data set, ``team/chats``, and what was asked of it."""

    address: str = ""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each commit."""
    revisions: dict[str, str] = field(default_factory=dict)
    """The commit that each name stands for."""
    large: set[str] = field(default_factory=set)
    """Files that lie in LFS."""
    token: str | None = None
    """Without it nothing is shown; None: anybody may read."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    ranges: list[str] = field(default_factory=list)
    break_off: list[int] = field(default_factory=list)
    """So many bodies break off after so many bytes."""
    alter: bytes | None = None
    """What bodies hold instead."""
    status: int | None = None
    """What every request is answered with, where it is an error."""

    def commit(self, files: dict[str, bytes], revision: str = "main") -> str:
        name = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.revisions[revision] = name
        return name

    def fetched(self) -> list[str]:
        """The files whose content was asked for, in order."""
        places = [path for kind, path in self.asked if kind == "GET" and "/resolve/" in path]
        return [path.rpartition("/resolve/")[2].partition("/")[2] for path in places]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path))
        if hub.status is not None:
            return self._send(hub.status, b"{}", body)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        known = "team/chats"
        if path.startswith(f"/api/datasets/{known}") and body:
            _, _, rest = path.partition(known)
            kind, _, revision = rest.strip("/").partition("/")
            commit = hub.revisions.get(revision or "main", revision)
            if commit not in hub.commits:
                return self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
            if kind == "tree":
                return self._send(200, json.dumps(list(self._tree(commit))).encode(), body)
            return self._send(200, json.dumps({"id": known, "sha": commit}).encode(), body)
        if path.startswith(f"/datasets/{known}/resolve/"):
            commit, _, name = path.partition("/resolve/")[2].partition("/")
            data = hub.commits.get(commit, {}).get(name)
            if data is None:
                return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            return self._content(commit, name, data, body)
        return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def _tree(self, commit: str) -> Iterator[dict[str, Any]]:
        yield {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}
        for name, data in self.hub.commits[commit].items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_name(data)}
            if name in self.hub.large:
                sha = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 130}
            yield entry

    def _content(self, commit: str, name: str, data: bytes, body: bool) -> None:
        data = data if self.hub.alter is None else self.hub.alter
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_name(data)}"', "Accept-Ranges": "bytes"}
        begin = 0
        if body and (asked := self.headers.get("Range")):
            self.hub.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = self.hub.break_off.pop() if body and self.hub.break_off else None
        self._send(206 if begin else 200, data[begin:], body, headers, cut)

    def _send(
        self,
        status: int,
        data: bytes,
        body: bool,
        headers: Mapping[str, str] = MappingProxyType({}),
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that listens on loopback inside this context."""
    hub = Hub()
    with listening(type("Handler", (_Handler,), {"hub": hub})) as hub.address:
        yield hub
