"""Prefect's settings, changed for a while and only in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from prefect.context import SettingsContext, get_settings_context


def retrying(times: int) -> AbstractContextManager[None]:
    """In this context, Prefect's clients send a failed request again, at most ``times`` times."""
    return changed_settings({"client": {"max_retries": times}})


@contextmanager
def changed_settings(changes: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """In this context, Prefect's settings have these changes, given by group and name.

    The changes are not checked, and no setting that depends on them changes. Prefect's ``temporary_settings``
    does both, but it reads all settings again, which takes longer than a request.
    """
    context = get_settings_context()
    groups = {
        group: getattr(context.settings, group).model_copy(update=dict(named))
        for group, named in changes.items()
    }
    settings = context.settings.model_copy(update=groups)
    with SettingsContext(profile=context.profile, settings=settings):
        yield
