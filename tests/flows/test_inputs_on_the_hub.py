"""A run over a data set on the Hub, a table and a saved data set: a dry run counts what a run then reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import polars as pl
import pytest
from curate_runs import Ran, figures_of, line
from hub_server import Hub, running_hub

TOKEN = "hf_canary_of_the_hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a private data set of three rows."""
    with running_hub() as running:
        rows = "".join(line(f"question {n}", f"answer {n}") + "\n" for n in range(3))
        running.commit({"data/train.jsonl": rows.encode(), "README.md": b"# Chats"})
        running.token = TOKEN
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
        yield running


@pytest.mark.slow
def test_a_run_reads_what_its_dry_run_counts_and_names_the_commit(
    curate: Callable[..., Ran],
    hub: Hub,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "chats"
    (folder / "saved").mkdir(parents=True)
    (folder / "rows.csv").write_text('prompt,response\n"two\nlines",four\nfive,six,seven\n')
    frame = pl.DataFrame({"prompt": ["eight"], "response": ["nine"]})
    frame.write_ipc_stream(folder / "saved/data-00000-of-00001.arrow")
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "saved/state.json").write_text(json.dumps(state))
    (folder / "saved/dataset_info.json").write_text("{}")

    inputs = ("--input", "hf://datasets/team/chats", folder)
    dry = curate(*inputs, "--dry-run")
    assert dry.code == 0, dry.err
    figures = figures_of(dry)
    assert (figures["input lines read"], figures["records"]) == ("8", "6")
    assert figures["quarantined: ragged_row"] == "1"

    ran = curate(*inputs)
    assert ran.code == 0, ran.err
    assert ran.manifest["rows"] == {"read": 6, "kept": 5, "dropped": 0, "quarantined": 1}
    assert [one["path"] for one in ran.manifest["inputs"]] == [
        f"hf://datasets/team/chats@{hub.revisions['main']}/data/train.jsonl",
        str(folder / "rows.csv"),
        str(folder / "saved/data-00000-of-00001.arrow"),
    ]
    (entry,) = map(json.loads, ran.files()["quarantine.jsonl"].splitlines())
    assert (entry["line"], entry["original"]) == (4, "five,six,seven")
    assert TOKEN not in dry.out + dry.err + ran.out + ran.err
    assert TOKEN.encode() not in b"".join(ran.files().values())
    fetched = len(hub.fetched())
    again = curate(*inputs)
    assert again.manifest["turns"]["scored"] == 0
    assert len(hub.fetched()) == fetched == 1
