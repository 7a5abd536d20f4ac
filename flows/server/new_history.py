"""A new database for the embedded server, made in one step from the result of Prefect's migrations.

Prefect makes a database by more than a hundred migrations, one after the other. They take several seconds,
and at every later start Prefect reads all of them to find that there is nothing to do. ``empty_history.sql``
holds the tables that they make, their last revision, and a digest of their names. If the installed Prefect
has the same migrations, a new database is made from this file, and an old database of this revision is up to
date. If it has others, Prefect runs its migrations as usual.

    python -m flows.server.new_history

writes the file anew for the installed Prefect.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from assay.core.digests import digest_of_bytes
from flows.server.run_history import DATABASE, parts_of

FILE = Path(__file__).with_name("empty_history.sql")
_COMMENT = "-- "
_SOURCE = (
    "Made by `python -m flows.server.new_history` from the migrations of Prefect "
    "(PrefectHQ/prefect, Apache-2.0)."
)
_MIGRATIONS = Path("server", "database", "_migrations", "versions", "sqlite")


class _Head(msgspec.Struct, frozen=True):
    """The file's first line."""

    migrations: str
    revision: str


@dataclass(frozen=True, slots=True)
class EmptyHistory:
    """The result of the installed Prefect's migrations."""

    revision: str
    """The revision of the last migration, as a database names it."""
    statements: str
    """SQL that makes the tables in a new database."""

    def begin(self, database: Path) -> None:
        """Make the database where there is none. Only one process at a time may do this."""
        if any(part.exists() for part in parts_of(database)):
            return
        unfinished = database.with_name(f"{database.name}.new")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as made:
            made.executescript(self.statements)
        unfinished.rename(database)

    def is_in(self, database: Path) -> bool:
        """Whether the database is at this revision."""
        try:
            with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as opened:
                found = opened.execute("SELECT version_num FROM alembic_version").fetchall()
        except sqlite3.Error:
            return False
        return bool(found == [(self.revision,)])


def empty_history() -> EmptyHistory | None:
    """The result of the installed Prefect's migrations. None where the file was made from others."""
    first, _, statements = FILE.read_text(encoding="utf-8").partition("\n")
    head = msgspec.json.decode(first.removeprefix(_COMMENT), type=_Head)
    if head.migrations != _digest_of_migrations():
        return None
    return EmptyHistory(head.revision, statements)


def _digest_of_migrations() -> str:
    """A digest of the names of the installed migrations. Prefect adds migrations and never changes one."""
    found = find_spec("prefect")
    assert found is not None
    assert found.origin is not None
    names = sorted(path.name for path in (Path(found.origin).parent / _MIGRATIONS).glob("*.py"))
    return digest_of_bytes(*(name.encode() for name in names))


def migrate(database: Path) -> None:
    """Make the database by Prefect's migrations. Call it in a process that has not imported Prefect yet."""
    os.environ["PREFECT_HOME"] = str(database.parent)
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())


def _write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / DATABASE
        migrate(database)
        with closing(sqlite3.connect(database)) as opened:
            ((revision,),) = opened.execute("SELECT version_num FROM alembic_version").fetchall()
            statements = "\n".join(opened.iterdump())
    head = msgspec.json.encode(_Head(_digest_of_migrations(), revision)).decode()
    FILE.write_text(f"{_COMMENT}{head}\n{_COMMENT}{_SOURCE}\n{statements}\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
