"""The embedded server's database, which holds the history of runs. No result depends on it.

A damaged database is set aside and a new one begins, because the server could not start with a damaged one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

DATABASE = "prefect.db"

#: Endings of the files that SQLite keeps beside a database. They move with it: they do not fit a new one.
_BESIDE = ("-wal", "-shm", "-journal")


def damage_of(database: Path) -> str | None:
    """What is wrong with the file, in SQLite's words. None where nothing is, or it cannot be checked now."""
    if not database.is_file():
        return None
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", timeout=1, uri=True)
        ) as opened:
            (found,) = opened.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        # Another server uses it, or the disk is full. That is no damage.
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found)


def set_aside(database: Path) -> Path:
    """Move the database away, with the files beside it. Returns its new path."""
    day = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    aside = database.with_name(f"{database.name}.damaged-{day}")
    for part in parts_of(database):
        if part.exists():
            part.rename(aside.with_name(aside.name + part.name.removeprefix(database.name)))
    return aside


def parts_of(database: Path) -> list[Path]:
    """The paths of the database and of the files that SQLite may keep beside it."""
    return [database.with_name(database.name + ending) for ending in ("", *_BESIDE)]
