"""A dataset is pushed in one commit; what a push that was cut off had uploaded is not uploaded again."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hub_server import git_name

from assay.core.errors import AssayError, Resumable, UserMistake
from assay.storage.hub_push import HubDataset, hub_dataset


@dataclass
class Hub:
    """A Hub on loopback that keeps what is pushed to it."""

    url: str = ""
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    commits: list[dict[str, bytes]] = field(default_factory=list)
    """What each commit wrote."""
    deleted: list[set[str]] = field(default_factory=list)
    """What each commit took away."""
    holds: dict[str, bytes] = field(default_factory=dict)
    """The dataset as it stands."""
    meanwhile: dict[str, bytes] = field(default_factory=dict)
    """What somebody else commits once the dataset has been looked at."""
    refuse_commits: int = 0
    tokens: set[str] = field(default_factory=set)


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    def large(data: bytes) -> bool:
        return len(data) > 1000

    def entry_of(path: str, data: bytes) -> dict[str, Any]:
        lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_name(data)}
        return entry | ({"lfs": lfs, "oid": "p" * 40} if large(data) else {})

    def head() -> str:
        return hashlib.sha1(repr(sorted(hub.holds.items())).encode()).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, body: Any, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_GET(self) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            if self.path == "/api/whoami-v2":
                if hub.role == "none":
                    self.answer({"error": "Invalid credentials"}, 401)
                    return
                orgs = [{"name": name, "roleInOrg": role} for name, role in hub.orgs.items()]
                self.answer({"name": "me", "orgs": orgs, "auth": {"accessToken": {"role": hub.role}}})
            elif "/tree/" in self.path:
                self.answer([entry_of(path, data) for path, data in sorted(hub.holds.items())])
                hub.holds |= hub.meanwhile
            elif "/resolve/" in self.path:
                self.content(body=True)
            else:
                self.answer(
                    {"id": "me/chats", "sha": head(), "siblings": [], "private": True, "xetEnabled": False}
                )

        def do_HEAD(self) -> None:
            self.content(body=False)

        def content(self, *, body: bool) -> None:
            data = hub.holds[self.path.partition("/resolve/")[2].partition("/")[2]]
            self.send_response(200)
            headers = {
                "X-Repo-Commit": head(),
                "ETag": f'"{git_name(data)}"',
                "Content-Length": str(len(data)),
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data if body else b"")

        def do_PUT(self) -> None:
            data = self.body()
            oid = self.path.rsplit("/", 1)[1]
            assert hashlib.sha256(data).hexdigest() == oid
            hub.objects[oid] = data
            hub.uploads.append(oid)
            self.answer({})

        def do_POST(self) -> None:
            data = self.body()
            if self.path == "/api/repos/create":
                asked = json.loads(data)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if name in hub.private:
                    self.answer({"error": "exists", "url": f"{hub.url}/datasets/{name}"}, 409)
                    return
                hub.private[name] = asked.get("private", asked.get("visibility") == "private")
                self.answer({"url": f"{hub.url}/datasets/{name}", "name": name})
            elif self.path.endswith("/preupload/main"):
                files = json.loads(data)["files"]
                self.answer(
                    {
                        "files": [
                            {
                                "path": file["path"],
                                "uploadMode": "lfs" if file["size"] > 1000 else "regular",
                                "shouldIgnore": False,
                                "oid": None,
                            }
                            for file in files
                        ]
                    }
                )
            elif self.path.endswith("/info/lfs/objects/batch"):
                found = []
                for one in json.loads(data)["objects"]:
                    upload = {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}
                    found.append({**one, **({} if one["oid"] in hub.objects else {"actions": upload})})
                self.answer({"transfer": "basic", "objects": found})
            elif self.path.endswith("/commit/main"):
                if hub.refuse_commits:
                    hub.refuse_commits -= 1
                    self.answer({"error": "the Hub falls over"}, 500)
                    return
                files, gone = {}, set()
                for line in data.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "header" and entry["value"].get("parentCommit", head()) != head():
                        self.answer({"error": "a commit has happened since"}, 412)
                        return
                    if entry["key"] == "deletedFile":
                        gone.add(entry["value"]["path"])
                    if entry["key"] == "file":
                        files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    elif entry["key"] == "lfsFile":
                        files[entry["value"]["path"]] = hub.objects[entry["value"]["oid"]]
                assert gone <= hub.holds.keys(), "the Hub refuses to delete what is not there"
                hub.commits.append(files)
                hub.deleted.append(gone)
                hub.holds = {name: data for name, data in hub.holds.items() if name not in gone} | files
                url = f"{hub.url}/datasets/me/chats/commit/{'1' * 40}"
                self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": url})
            else:
                self.answer({"errors": [], "warnings": []})

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload by Git LFS: the Hub's other way, Xet, sends chunks to a service of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "trl").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: unknown\n---\n")
    (tmp_path / "trl/sft.jsonl").write_text('{"messages": []}\n' * 200)
    (tmp_path / "quarantine.jsonl").write_text("nobody's business\n")
    return tmp_path


FILES = ("README.md", "trl/sft.jsonl")


def test_a_push_is_one_commit_of_the_named_files_into_a_private_dataset(hub: Hub, results: Path) -> None:
    place = HubDataset("me/chats", "hf_secret", endpoint=hub.url)
    place.check()
    assert place.push(results, FILES, message="Rated") == f"{hub.url}/datasets/me/chats/commit/{'1' * 40}"
    (commit,) = hub.commits
    assert json.loads(commit.pop("assay-files.json"))["files"].keys() == set(FILES)
    assert commit == {name: (results / name).read_bytes() for name in FILES}
    assert hub.private == {"me/chats": True}
    assert hub.tokens <= {"Bearer hf_secret"}
    assert "hf_secret" not in repr(place)


@pytest.mark.slow
def test_a_push_that_was_cut_off_is_finished_without_uploading_again(hub: Hub, results: Path) -> None:
    place = HubDataset("me/chats", "t", endpoint=hub.url)
    hub.refuse_commits = 10
    with pytest.raises(Resumable, match="the same command goes on with the upload"):
        place.push(results, FILES, message="Rated")
    assert (len(hub.uploads), hub.commits) == (1, [])
    hub.refuse_commits = 0
    place.push(results, FILES, message="Rated")
    assert len(hub.uploads) == 1
    assert [set(commit) for commit in hub.commits] == [{*FILES, "assay-files.json"}]


@pytest.mark.slow
def test_a_push_takes_away_what_an_earlier_one_wrote_and_nothing_of_a_person(hub: Hub, results: Path) -> None:
    place = HubDataset("me/chats", "t", endpoint=hub.url)
    hub.holds = {".gitattributes": b"a person's", "notes/mine.jsonl": b"a person's"}
    for name in ("small.jsonl", "trl/large.jsonl", "edited.jsonl", "gone.jsonl"):
        (results / name).write_text(name * (1 if name == "small.jsonl" else 200))
    place.push(results, [*FILES, "small.jsonl", "trl/large.jsonl", "edited.jsonl", "gone.jsonl"], message="1")
    hub.holds["edited.jsonl"] = b"what a person made of it"
    hub.holds["trl/mine.jsonl"] = hub.holds["small.jsonl"]
    del hub.holds["gone.jsonl"]
    place.push(results, FILES, message="2")
    assert hub.deleted == [set(), {"small.jsonl", "trl/large.jsonl"}]
    kept = {".gitattributes", "notes/mine.jsonl", "edited.jsonl", "trl/mine.jsonl"}
    assert hub.holds.keys() == {*FILES, "assay-files.json"} | kept
    place.push(results, FILES[:1], message="3")
    assert hub.deleted[2] == {"trl/sft.jsonl"}
    hub.holds["assay-files.json"] = b"{"
    place.push(results, FILES[1:], message="4")
    assert hub.deleted[3] == set()


@pytest.mark.slow
def test_what_somebody_commits_meanwhile_is_looked_at_before_anything_is_taken_away(
    hub: Hub, results: Path
) -> None:
    place = HubDataset("me/chats", "t", endpoint=hub.url)
    place.push(results, FILES, message="1")
    hub.meanwhile = {"trl/sft.jsonl": b"a person's"}
    with pytest.raises(Resumable, match="the same command goes on with the upload"):
        place.push(results, FILES[:1], message="2")
    place.push(results, FILES[:1], message="2")
    assert hub.deleted == [set(), set()]
    assert hub.holds["trl/sft.jsonl"] == b"a person's"


@pytest.mark.parametrize(
    ("role", "orgs", "name", "why"),
    [
        ("none", {}, "me/chats", "does not accept the token"),
        ("read", {}, "me/chats", "may only read"),
        ("write", {}, "team/chats", "may not write to team; it may to me"),
        ("write", {"team": "read"}, "team/chats", "may not write to team"),
    ],
)
def test_a_token_that_may_not_write_is_refused(
    hub: Hub, role: str, orgs: dict[str, str], name: str, why: str
) -> None:
    hub.role, hub.orgs = role, orgs
    with pytest.raises(UserMistake, match=why):
        HubDataset(name, "t", endpoint=hub.url).check()
    assert hub.private == {}


def test_members_who_may_write_may_push(hub: Hub) -> None:
    hub.orgs = {"team": "contributor"}
    HubDataset("team/chats", "t", endpoint=hub.url).check()


def test_a_hub_that_is_not_there_is_named() -> None:
    with pytest.raises(UserMistake, match="the Hub cannot be reached"):
        HubDataset("me/chats", "t", endpoint="http://127.0.0.1:9").check()


def test_a_dataset_needs_a_name_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "t")
    assert hub_dataset("me/chats", "MINE", private=True).token == "t"
    for name, variable, why in (
        ("chats", "MINE", "write OWNER/NAME"),
        ("me/chats", None, "no token"),
        ("me/chats", "NOT_SET", "no token"),
    ):
        with pytest.raises(UserMistake, match=why):
            hub_dataset(name, variable, private=True)
    assert issubclass(UserMistake, AssayError)
