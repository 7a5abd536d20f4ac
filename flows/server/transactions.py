"""A server's transactions take SQLite's write lock when they begin, so that none fails because of another.

A transaction that reads first and writes later fails at once if another one has written in between. Prefect's
server then answers 503, and its client waits longer and longer, up to a minute in all, before it gives up.
A transaction that takes the lock when it begins waits for its turn instead.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession


def lock_at_once() -> None:
    """Have every transaction of this process's server begin as one that writes."""
    begin = AioSqliteConfiguration.begin_transaction

    def immediate(
        self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = True
    ) -> AbstractAsyncContextManager[object]:
        return begin(self, session, with_for_update=True)

    setattr(AioSqliteConfiguration, "begin_transaction", immediate)  # noqa: B010 - mypy allows no other way
