"""A damaged history of runs is recognised, and set aside with all of its files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.server.run_history import damage_of, set_aside


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a folder?" / "prefect.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT)")
        opened.executemany("INSERT INTO run (name) VALUES (?)", [(f"run {n}" * 20,) for n in range(500)])
        opened.commit()
    return path


def test_whole_empty_and_missing_histories_are_not_damaged(database: Path, tmp_path: Path) -> None:
    assert damage_of(database) is None
    database.write_bytes(b"")
    assert damage_of(database) is None
    assert damage_of(tmp_path / "none.db") is None
    assert not (tmp_path / "none.db").exists()


@pytest.mark.slow
def test_a_history_that_another_server_writes_to_is_not_damaged(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert damage_of(database) is None


@pytest.mark.parametrize("harm", ["cut", "a flipped bit of the header", "a page of zeros", "no database"])
def test_a_damaged_history_is_noticed(database: Path, harm: str) -> None:
    data = database.read_bytes()
    database.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "a flipped bit of the header": bytes([data[0] ^ 1]) + data[1:],
            "a page of zeros": data[:8192] + bytes(4096) + data[12288:],
            "no database": b"something else " * 100,
        }[harm]
    )
    assert damage_of(database)


def test_a_damaged_history_is_set_aside_with_the_files_beside_it(database: Path) -> None:
    for ending in ("-wal", "-shm"):
        database.with_name(database.name + ending).write_text(ending)
    aside = set_aside(database)
    names = {path.name for path in database.parent.iterdir()}
    assert names >= {aside.name, f"{aside.name}-wal", f"{aside.name}-shm"}
    assert damage_of(aside) is None
    assert not any(name.startswith("prefect.db-") or name == "prefect.db" for name in names)
