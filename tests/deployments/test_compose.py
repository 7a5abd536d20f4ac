"""The compose file is hardened as its operator was promised, and docker-compose can read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT
from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

from assay.config.settings import Settings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = ("POSTGRES_PASSWORD", "PREFECT_AUTH_STRING", "ASSAY_DATA", "ASSAY_RESULTS", "ASSAY_MODELS")
PROFILES = {
    "cpu": {"worker", "dask-scheduler", "dask-worker"},
    "gpu": {"worker-gpu", "dask-scheduler-gpu", "dask-worker-gpu"},
}
#: Of the image; PostgreSQL's of Debian's image.
OWNERS = {"10001:10001": "uid=10001,gid=10001", "999:999": "uid=999,gid=999"}


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
    assert service["restart"] == "on-failure" or "test" in service["healthcheck"]


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
    lines = (ROOT / "deployments/example.env").read_text().splitlines()
    filled = [line for line in lines if line and not line.startswith("#")]
    assert filled == [*(f"{name}=" for name in SECRETS), "COMPOSE_PROFILES=cpu"]


def test_the_data_cannot_be_written_and_the_database_is_reached_by_the_server_alone() -> None:
    for service in SERVICES.values():
        assert all(":ro" in volume for volume in service.get("volumes", []) if ":/data" in volume)
    assert COMPOSE["networks"]["database"]["internal"] is True
    reaching = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert reaching == {"postgres", "prefect-server"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_tmpfs_over_a_folder_of_the_image_belongs_to_who_writes_there(name: str) -> None:
    service = SERVICES[name]
    for mounted in service["tmpfs"]:
        path, _, options = mounted.partition(":")
        assert "mode=" in options
        # Everybody may write to /tmp.
        assert path == "/tmp" or OWNERS[service["user"]] in options, mounted


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_an_init_and_limits_of_memory_and_processes(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert service["mem_limit"]
    assert service["pids_limit"] > 0


def test_cpu_and_gpu_have_a_worker_of_their_queue_and_a_cluster_each() -> None:
    for profile, names in PROFILES.items():
        assert {name for name, one in SERVICES.items() if one.get("profiles") == [profile]} == names
        (worker,) = (name for name in names if name.startswith("worker"))
        assert SERVICES[worker]["command"] == ["python", "-m", "deployments.worker", profile]
        scheduler = SERVICES[worker]["environment"]["ASSAY_SCHEDULER_ADDRESS"]
        (host,) = (name for name in names if name.startswith("dask-scheduler"))
        assert scheduler == f"tcp://{host}:8786"
        (scoring,) = (name for name in names if name.startswith("dask-worker"))
        assert scheduler in SERVICES[scoring]["command"]
        assert host in SERVICES[scoring]["healthcheck"]["test"][-1]
    published = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert len({port.rpartition(":")[0] for port in published}) == len(published)


@pytest.mark.parametrize("name", ["deploy", *sorted(set().union(*PROFILES.values()))])
def test_models_services_and_s3_reach_what_needs_them(name: str) -> None:
    service = SERVICES[name]
    if name.startswith("dask-scheduler"):
        # It moves what others read.
        assert not service.get("volumes")
        return
    assert "models:/models:ro" in service["volumes"]
    assert service["env_file"] == ["${ASSAY_SERVICES:-deployments/services.env}"]
    assert service["environment"]["HF_HOME"].startswith("/var/lib/assay/")


def test_the_example_of_services_names_settings_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / "deployments/services.env").read_text().splitlines()
    found = [one for line in lines if (one := re.fullmatch(r"#? ?([A-Z_]+)=(.*)", line))]
    given = {one[1]: one[2] for one in found}
    ours = {name: value for name, value in given.items() if name.startswith("ASSAY_")}
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} <= given.keys() - ours.keys()
    for name in os.environ:
        if name.startswith("ASSAY_"):
            monkeypatch.delenv(name)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    # Remove the last line first: a later setting may need an earlier one.
    for name in reversed(ours):
        before = Settings.read()
        monkeypatch.delenv(name)
        assert Settings.read() != before, f"{name} changes nothing"


def test_workers_wait_for_the_deployments_which_are_tried_until_they_are_there() -> None:
    assert SERVICES["deploy"]["restart"] == "on-failure"
    for name in ("worker", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["deploy"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["stop_grace_period"] == "2m"


def test_folders_of_the_host_are_bound_and_none_is_made() -> None:
    # By the local driver, which fails where a folder is missing. A short "folder:/data" would make it.
    for name in ("data", "results", "models"):
        assert COMPOSE["volumes"][name]["driver_opts"]["o"] == "bind"
    for one in SERVICES.values():
        assert all(re.match(r"[a-z-]+:/", volume) for volume in one.get("volumes", []))


def test_the_pages_find_their_api_behind_any_proxy() -> None:
    assert SERVICES["prefect-server"]["environment"]["PREFECT_SERVER_UI_API_URL"] == "/api"


@pytest.mark.slow
def test_any_password_reaches_the_database() -> None:
    parts = SERVICES["prefect-server"]["environment"]
    password = "a@b/c#d%e:f g"
    given = {name: value for name, value in parts.items() if name.startswith("PREFECT_SERVER_DATABASE_")}
    assert given["PREFECT_SERVER_DATABASE_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    read = (
        "from prefect.settings import get_current_settings as now; from sqlalchemy.engine import make_url;"
        "url = make_url(now().server.database.connection_url.get_secret_value());"
        "print(url.username, url.host, url.database, url.password, sep=chr(10))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", read],
        env={**kept, **given, "PREFECT_SERVER_DATABASE_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == ["assay", "postgres", "prefect", password]


@pytest.mark.parametrize(("given", "days"), [(None, 36_500), ("30", 30)])
def test_prefects_server_removes_ended_runs_after_so_many_days(
    monkeypatch: pytest.MonkeyPatch, given: str | None, days: int
) -> None:
    prefix = "PREFECT_SERVER_SERVICES_DB_VACUUM_"
    for name, value in SERVICES["prefect-server"]["environment"].items():
        if name.startswith(prefix):
            default = re.search(r":-(\d+)", value)
            put = re.sub(r"\$\{ASSAY_KEEP_DAYS:-\d+\}", given or (default[1] if default else ""), value)
            monkeypatch.setenv(name, put)
    vacuum = ServerServicesDBVacuumSettings()
    assert vacuum.enabled_vacuum_types >= {"events", "flow_runs"}
    assert vacuum.retention_period == timedelta(days=days)


def test_gpus_are_reserved_in_their_profile() -> None:
    (device,) = SERVICES["dask-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_image_runs_as_somebody_and_is_pinned() -> None:
    lines = (ROOT / "deployments/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    assert all(re.search(r":\d+\.\d+\.\d+", line) for line in lines if line.startswith("FROM"))


def test_the_image_has_our_modules_compiled_for_nobody_can_write_there() -> None:
    text = (ROOT / "deployments/Dockerfile").read_text()
    copied = re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE)
    assert {"assay", "flows"} <= set(copied)
    assert f"python -m compileall -q {' '.join(copied)}" in text


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

    given = {name: str(tmp_path) for name in SECRETS} | {"POSTGRES_PASSWORD": "a@b/c#d"}
    whole = config(**given)
    assert whole.returncode == 0, whole.stderr
    assert set(yaml.safe_load(whole.stdout)["services"]) == set(SERVICES)
    kept = yaml.safe_load(config(**given, ASSAY_KEEP_DAYS="30").stdout)["services"]["prefect-server"]
    assert kept["environment"]["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"] == "P30D"
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


def test_workers_know_after_how_many_days_converted_records_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("worker", "worker-gpu"):
        assert SERVICES[name]["environment"]["ASSAY_KEEP_DAYS"] == "${ASSAY_KEEP_DAYS:-}"
    # What compose gives where .env names none.
    monkeypatch.setenv("ASSAY_KEEP_DAYS", "")
    assert Settings.read().keep_days is None
    monkeypatch.setenv("ASSAY_KEEP_DAYS", "30")
    assert Settings.read().keep_days == 30
