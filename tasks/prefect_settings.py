"""Prefect's settings, changed for a while and in this process alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from prefect.context import SettingsContext, get_settings_context


def retrying(times: int) -> AbstractContextManager[None]:
    """Within, Prefect's clients send a request that failed so many times again."""
    return changed_settings({"client": {"max_retries": times}})


@contextmanager
def changed_settings(changes: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Within, these of Prefect's settings are others, by their group and name.

    Nothing is derived from them or checked. Prefect's ``temporary_settings`` does that, for which it reads
    all settings anew; it takes longer than a request.
    """
    context = get_settings_context()
    groups = {
        group: getattr(context.settings, group).model_copy(update=dict(named))
        for group, named in changes.items()
    }
    settings = context.settings.model_copy(update=groups)
    with SettingsContext(profile=context.profile, settings=settings):
        yield
