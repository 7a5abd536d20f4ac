"""A database that is made in one step equals the one that Prefect's migrations make; they still work."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from places import ROOT

from flows.server import new_history
from flows.server.embedded import EmbeddedServer
from flows.server.new_history import EmptyHistory, empty_history

MIGRATED = "import sys; from pathlib import Path; from flows.server.new_history import migrate; " + (
    "migrate(Path(sys.argv[1]))"
)


def tables(database: Path) -> dict[tuple[str, str], list[str]]:
    """Every table and index with the lines of its statement: migrations give constraints in any order."""
    with closing(sqlite3.connect(database)) as opened:
        found = opened.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (kind, name): sorted(line.strip().rstrip(",") for line in (sql or "").split("\n"))
        for kind, name, sql in found
    }


def rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """What each table holds, where it holds anything."""
    with closing(sqlite3.connect(database)) as opened:
        names = [name for kind, name in tables(database) if kind == "table"]
        found = {name: opened.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    return {name: held for name, held in found.items() if held}


def of_the_installed_prefect() -> EmptyHistory:
    found = empty_history()
    if found is None:
        pytest.skip(
            "empty_history.sql is of another Prefect: python -m flows.server.new_history makes it anew"
        )
    return found


@pytest.mark.operated
def test_it_has_the_tables_indexes_and_rows_that_the_migrations_make(tmp_path: Path) -> None:
    history = of_the_installed_prefect()
    migrated, made = tmp_path / "migrated.db", tmp_path / "made.db"
    subprocess.run([sys.executable, "-c", MIGRATED, str(migrated)], cwd=ROOT, check=True)
    history.begin(made)
    assert tables(made) == tables(migrated)
    assert len(tables(made)) > 100
    assert rows(made) == rows(migrated) == {"alembic_version": [(history.revision,)]}
    assert history.is_in(migrated)
    assert history.is_in(made)


@pytest.mark.operated
def test_a_database_without_any_migration_is_migrated_by_prefect(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    database.touch()
    server = EmbeddedServer(tmp_path)
    server.start()
    try:
        server.wait(120, print)
    finally:
        server.stop()
    assert ("table", "flow_run") in tables(database)


def test_an_existing_database_stays(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    for name in ("prefect.db", "prefect.db-wal", "prefect.db-journal"):
        file = tmp_path / name
        file.write_bytes(b"somebody's")
        of_the_installed_prefect().begin(database)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert file.read_bytes() == b"somebody's"
        file.unlink()


def test_an_unfinished_database_is_made_again(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    (tmp_path / "prefect.db.new").write_bytes(b"half of it")
    history = of_the_installed_prefect()
    history.begin(database)
    assert history.is_in(database)
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.db"]


def test_a_database_of_another_revision_and_a_file_that_is_no_database_are_not_up_to_date(
    tmp_path: Path,
) -> None:
    history = of_the_installed_prefect()
    database = tmp_path / "prefect.db"
    assert not history.is_in(database)
    assert not database.exists()
    history.begin(database)
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'earlier'")
        opened.commit()
    assert not history.is_in(database)
    database.write_bytes(b"no database" * 1000)
    assert not history.is_in(database)


def test_a_prefect_with_other_migrations_is_left_to_migrate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_history, "_MIGRATIONS", Path("server"))
    assert empty_history() is None
