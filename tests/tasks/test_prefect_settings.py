"""Prefect's settings, changed for a while."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.prefect_settings import retrying


def test_requests_are_sent_again_as_often_as_is_said_and_nothing_else_changes() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api", PREFECT_CLIENT_MAX_RETRIES: 4}):
        with retrying(1):
            assert PREFECT_CLIENT_MAX_RETRIES.value() == 1
            assert PREFECT_API_URL.value() == "http://127.0.0.1:4200/api"
            with retrying(0):
                assert PREFECT_CLIENT_MAX_RETRIES.value() == 0
            assert PREFECT_CLIENT_MAX_RETRIES.value() == 1
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 4
