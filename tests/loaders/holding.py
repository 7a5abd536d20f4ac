"""``datasets`` of both ends of its range loads a folder's data, and nothing else of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loaders.calling_chats import TOOL_CHATS
from loaders.exported import Exports, exported_rows
from loaders.page import snippet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Holds:
    """What both versions are held to."""

    def test_a_folder_is_its_data_and_nothing_else(self, exports: Exports, load: Any) -> None:
        found = load("datasets_load", arguments=[str(exports.folder)])
        assert list(found["splits"]) == ["train"], found
        assert found["splits"]["train"] == exports.rows("messages")

    def test_the_snippet_loads_the_export_that_it_names(
        self, exports: Exports, load: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "out").symlink_to(exports.folder)
        found = load("datasets_snippet", code=snippet("datasets", "python"))
        assert found == exports.rows("trl-sft")

    def test_every_config_of_the_card_loads(self, exports: Exports, load: Any) -> None:
        for name in exports.written:
            if exports.path(name).suffix == ".parquet":
                continue
            found = load("datasets_load", arguments=[str(exports.folder), name])
            assert "died" not in found, (name, found)
            assert len(found["splits"]["train"]) == exports.written[name].rows, name

    @pytest.mark.parametrize(
        "name", ["messages", "trl-sft", "trl-preference", "axolotl-sft", "llamafactory-sft"]
    )
    def test_what_messages_hold_is_loaded_as_it_is(self, name: str, calls: Exports, load: Any) -> None:
        found = load("datasets_load", arguments=[str(calls.folder), name])
        assert found["splits"]["train"] == calls.rows(name)

    def test_messages_of_sources_with_other_fields_load(self, load: Any, tmp_path: Path) -> None:
        """More than one block of ``datasets``, which casts each to the first one's types."""
        message = [{"role": "user", "content": "Q" * 400}, {"role": "assistant", "content": "A" * 400}]
        extras = ("{}", '{"id": 1}', '{"id": "one", "more": [1.10]}')
        path = tmp_path / "messages.jsonl"
        with path.open("w") as file:
            for extra in extras:
                row = {"messages": message, "score": 1.0, "extra": extra}
                for _ in range(14_000):
                    file.write(json.dumps(row) + "\n")
        found = load("datasets_count", file=str(path))
        assert found == {"rows": 42_000, "extras": list(extras)}

    def test_numbered_files_are_loaded_whole_and_in_order(self, load: Any, tmp_path: Path) -> None:
        rows = [
            {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}]}
            for n in range(300)
        ]
        cut = exported_rows(rows, tmp_path / "results", shard_bytes=5000)
        for name in ("messages", "trl-sft"):
            assert len(cut.written[name].by_side["train"]) > 3
            found = load("datasets_load", arguments=[str(cut.folder), name])
            assert found["splits"]["train"] == cut.rows(name)

    def test_a_field_that_is_rarer_than_10_mb_loads(self, load: Any, tmp_path: Path) -> None:
        """The first block of ``datasets`` has no call and no reasoning; the card has their types."""
        plain = {
            "messages": [{"role": "user", "content": "Q" * 400}, {"role": "assistant", "content": "A" * 400}]
        }
        rows = [plain] * 14_000 + TOOL_CHATS
        calls = exported_rows(rows, tmp_path / "results")
        for name in ("messages", "trl-sft", "axolotl-sft", "trl-preference"):
            found = load("datasets_load", arguments=[str(calls.folder), name])
            assert "died" not in found, (name, found)
            assert found["splits"]["train"] == calls.rows(name)
