"""The compose file is hardened as its operator was promised, and docker-compose can read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = ("POSTGRES_PASSWORD", "PREFECT_AUTH_STRING", "ASSAY_DATA")


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_root_or_can_change_its_own_files(name: str) -> None:
    service = SERVICES[name]
    user, _, group = str(service["user"]).partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert "cap_add" not in service
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))
    assert service.get("network_mode") is None


@pytest.mark.parametrize("name", SERVICES)
def test_versions_are_pinned_and_health_is_checked(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].partition(":")
    assert re.match(r"\d+\.\d+", tag), f"{image} has no version"
    # A job that ends has no health.
    assert service["restart"] == "no" or "test" in service["healthcheck"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_nothing_has_a_default_password() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in text.splitlines():
        named = re.findall(r"\$\{([A-Z_]+)([^}]*)\}", line)
        assert all(rest.startswith(":?") for name, rest in named if name in SECRETS), line
        if re.search(r"PASSWORD|AUTH_STRING", line) and not line.lstrip().startswith("#"):
            assert named, line
    filled = [line for line in (ROOT / "deployments/example.env").read_text().splitlines() if line[:1] != "#"]
    assert filled == [f"{name}=" for name in SECRETS]


def test_the_data_cannot_be_written_and_the_database_is_reached_by_the_server_alone() -> None:
    for service in SERVICES.values():
        assert all(":ro" in volume for volume in service.get("volumes", []) if ":/data" in volume)
    assert COMPOSE["networks"]["database"]["internal"] is True
    reaching = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert reaching == {"postgres", "prefect-server"}


def test_gpus_are_reserved_in_their_profile() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == {"dask-worker-gpu"}
    (device,) = SERVICES["dask-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_image_runs_as_somebody_and_is_pinned() -> None:
    lines = (ROOT / "deployments/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    assert all(re.search(r":\d+\.\d+\.\d+", line) for line in lines if line.startswith("FROM"))


@pytest.mark.operated
@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_reads_it_and_refuses_to_start_without_secrets(tmp_path: Path) -> None:
    def config(**environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
        return subprocess.run(
            ["docker-compose", "-f", "docker-compose.yml", "config"],
            cwd=ROOT,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    given = {"POSTGRES_PASSWORD": "a", "PREFECT_AUTH_STRING": "b:c", "ASSAY_DATA": str(tmp_path)}
    whole = config(**given)
    assert whole.returncode == 0, whole.stderr
    assert set(yaml.safe_load(whole.stdout)["services"]) == set(SERVICES)
    for name in SECRETS:
        lacking = config(**{other: value for other, value in given.items() if other != name})
        assert lacking.returncode != 0
        assert f"set {name}" in lacking.stderr


def test_the_example_automation_is_one() -> None:
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    from flows.server.announcing import COMPLETED_EVENT

    automation = AutomationCore.model_validate(
        yaml.safe_load((ROOT / "deployments/automation.yaml").read_text())
    )
    assert isinstance(automation.trigger, EventTrigger)
    assert automation.trigger.expect == {COMPLETED_EVENT}
    assert not automation.enabled
