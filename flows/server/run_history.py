"""The embedded server's database: a history of runs, which no result depends on, and so no run waits for.

One that is damaged is set aside and a new one is begun, because the server could not start with it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

DATABASE = "prefect.db"

#: What SQLite keeps beside a database. To a new one it would be another's.
_BESIDE = ("-wal", "-shm", "-journal")


def damage_of(database: Path) -> str | None:
    """What SQLite says is wrong with the file; None where there is nothing, or it cannot be looked at now."""
    if not database.is_file():
        return None
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", timeout=1, uri=True)
        ) as opened:
            (found,) = opened.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        # Another server is at work on it, or the disk is full: that is no damage.
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found)


def set_aside(database: Path) -> Path:
    """Where the database is now, with what SQLite keeps beside it."""
    day = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    aside = database.with_name(f"{database.name}.damaged-{day}")
    for part in parts_of(database):
        if part.exists():
            part.rename(aside.with_name(aside.name + part.name.removeprefix(database.name)))
    return aside


def parts_of(database: Path) -> list[Path]:
    """The database's files: itself, and what SQLite may keep beside it."""
    return [database.with_name(database.name + ending) for ending in ("", *_BESIDE)]
