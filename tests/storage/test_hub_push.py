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
    refuse_commits: int = 0
    tokens: set[str] = field(default_factory=set)


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
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
            else:
                self.answer(
                    {"id": "me/chats", "sha": "0" * 40, "siblings": [], "private": True, "xetEnabled": False}
                )

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
                files = {}
                for line in data.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    elif entry["key"] == "lfsFile":
                        files[entry["value"]["path"]] = hub.objects[entry["value"]["oid"]]
                hub.commits.append(files)
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
    assert hub.commits == [{name: (results / name).read_bytes() for name in FILES}]
    assert hub.private == {"me/chats": True}
    assert hub.tokens <= {"Bearer hf_secret"}
    assert "hf_secret" not in repr(place)


def test_a_push_that_was_cut_off_is_finished_without_uploading_again(hub: Hub, results: Path) -> None:
    place = HubDataset("me/chats", "t", endpoint=hub.url)
    hub.refuse_commits = 10
    with pytest.raises(Resumable, match="the same command goes on with the upload"):
        place.push(results, FILES, message="Rated")
    assert (len(hub.uploads), hub.commits) == (1, [])
    hub.refuse_commits = 0
    place.push(results, FILES, message="Rated")
    assert len(hub.uploads) == 1
    assert [set(commit) for commit in hub.commits] == [set(FILES)]


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
