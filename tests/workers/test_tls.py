"""Over TLS, with certificates of an own authority: the same bytes, and nobody without one gets in."""

from __future__ import annotations

import asyncio
import copy
import datetime
import ipaddress
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import fakes
import handmade
import pytest
import stages
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.comm.core import connect
from handmade import Record
from places import ROOT, TESTS
from running_dask import address_in

from assay.core.errors import ClusterFault, UserMistake
from assay.storage.home import Home
from assay.workers import cluster
from assay.workers.cluster import ClusterOptions
from assay.workers.environment import WORKER_ENVIRONMENT

pytestmark = pytest.mark.slow

DAY = datetime.timedelta(days=1)


#: What docs/multi-node.md has a run's machine say to Dask.
PAGE = (ROOT / "docs/multi-node.md").read_text()
SETTINGS = yaml.safe_load(next(iter(re.findall(r"```yaml\n(distributed:.*?)```", PAGE, re.DOTALL))))


@dataclass(frozen=True)
class Papers:
    """The files that prove who one is, and by which authority others are believed."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def options(self) -> list[str]:
        """For ``dask scheduler`` and ``dask worker``."""
        return [
            *("--tls-ca-file", str(self.authority)),
            *("--tls-cert", str(self.certificate), "--tls-key", str(self.key)),
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """Dask's own settings for a run, as the page has them, with these files."""
        read = copy.deepcopy(SETTINGS)
        tls = read["distributed"]["comm"]["tls"]
        assert tls.keys() == {"ca-file", "client"}
        tls["ca-file"] = str(self.authority)
        assert tls["client"].keys() == {"cert", "key"}
        tls["client"] = {"cert": str(self.certificate), "key": str(self.key)}
        merged: dict[str, Any] = dask.config.merge(dask.config.config, read)
        return merged


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def papers(folder: Path) -> Papers:
    """A new authority, and a certificate of it for this machine."""
    folder.mkdir()
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    begins = datetime.datetime.now(datetime.UTC) - DAY

    def signed(subject: x509.Name, public_key: Any, *, is_authority: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name(f"authority {folder.name}"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + 3 * DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        made = builder.sign(authority_key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    made = Papers(folder / "ca.pem", folder / "host.pem", folder / "host.key")
    made.authority.write_bytes(
        signed(name(f"authority {folder.name}"), authority_key.public_key(), is_authority=True)
    )
    made.certificate.write_bytes(signed(name("host"), key.public_key(), is_authority=False))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("authorities") / "ours")


@pytest.fixture(scope="module")
def scheduler_address(ours: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers in processes of their own, as an operator starts them."""
    folder = tmp_path_factory.mktemp("dask")
    found = folder / "scheduler.json"
    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(TESTS)}
    where = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(found)]
    common = [*ours.options, *where]
    dask_command = [sys.executable, "-m", "dask"]
    commands = [
        [*dask_command, "scheduler", "--protocol", "tls", "--port", "0", *common],
        *[[*dask_command, "worker", "--nthreads", "1", "--local-directory", str(folder), *common]] * 2,
    ]
    with ExitStack() as stack, (folder / "log").open("w") as log:
        for command in commands:
            started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(started.wait, 30)
            stack.callback(started.terminate)
            address = address_in(found)
            assert started.poll() is None, (folder / "log").read_text()
        yield address


def scored_bytes(folder: Path, workers: ClusterOptions) -> dict[str, bytes]:
    """What scoring wrote, by name."""
    home = Home(folder / "home")
    texts = [(("user", f"question {number}"), ("assistant", f"answer {number}")) for number in range(40)]
    records = [Record(number + 1, messages) for number, messages in enumerate(texts)]
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    model = fakes.spec(folder / "model")
    scored, work = stages.score(converted, model, home=home, cluster=workers, shard_tokens=60)
    assert work.turns_scored == 40
    assert stages.scores_are_current(converted, model, scored, home)
    written = [*home.scores.rglob("*.parquet"), *(home.artifacts / "score").rglob("*.parquet")]
    return {path.name: path.read_bytes() for path in written}


def test_a_run_over_tls_writes_the_bytes_of_a_run_on_this_machine(
    ours: Papers, scheduler_address: str, tmp_path: Path
) -> None:
    assert scheduler_address.startswith("tls://127.0.0.1:")
    with dask.config.set(ours.settings):
        over_tls = scored_bytes(tmp_path / "tls", ClusterOptions(scheduler_address=scheduler_address))
    assert over_tls == scored_bytes(tmp_path / "here", ClusterOptions(workers=1))


def refusal(address: str, folder: Path, settings: dict[str, Any]) -> str:
    with (
        dask.config.set(settings),
        pytest.raises((ClusterFault, UserMistake)) as refused,
    ):
        scored_bytes(folder, ClusterOptions(scheduler_address=address))
    return str(refused.value)


def why_turned_away(address: str, context: ssl.SSLContext) -> str:
    """What ends a connection of somebody who brings no certificate."""
    host, port = address.removeprefix("tls://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        pytest.raises(ssl.SSLError) as refused,
        context.wrap_socket(raw, server_hostname=host) as wrapped,
    ):
        # In TLS 1.3 the server looks at certificates after the client's handshake is done.
        wrapped.recv(1)
    return str(refused.value)


def test_who_has_no_certificate_is_not_let_in(ours: Papers, scheduler_address: str, tmp_path: Path) -> None:
    believing_only = {"distributed.comm.tls.ca-file": str(ours.authority)}
    assert "no certificates are named" in refusal(scheduler_address, tmp_path / "a", {})
    assert "no certificates are named" in refusal(scheduler_address, tmp_path / "b", believing_only)
    plain = scheduler_address.replace("tls://", "tcp://")
    assert "use tls:// if it has certificates" in refusal(plain, tmp_path / "c", {})
    assert "require encryption" in refusal(plain, tmp_path / "d", ours.settings)
    # Nor is a client let in that Assay does not configure.
    context = ssl.create_default_context(cafile=str(ours.authority))
    assert "certificate required" in why_turned_away(scheduler_address, context)


@pytest.mark.faults
@pytest.mark.parametrize("wrong", ["certificate", "authority", "both"])
def test_a_certificate_of_another_authority_is_not_believed_on_either_side(
    ours: Papers, scheduler_address: str, tmp_path: Path, wrong: str
) -> None:
    theirs = papers(tmp_path / "theirs")
    used = {
        "certificate": replace(theirs, authority=ours.authority),
        "authority": replace(ours, authority=theirs.authority),
        "both": theirs,
    }[wrong]
    message = refusal(scheduler_address, tmp_path / "run", used.settings)
    assert f"TLS with the Dask scheduler at {scheduler_address} failed" in message
    assert "both certificates have one CA" in message
    assert "\n" not in message


def test_certificates_that_cannot_be_read_are_the_users_mistake(
    ours: Papers, scheduler_address: str, tmp_path: Path
) -> None:
    gone = replace(ours, key=tmp_path / "gone.key").settings
    assert "the certificates cannot be read" in refusal(scheduler_address, tmp_path / "run", gone)


@pytest.mark.parametrize("gpu_groups", [False, True])
@pytest.mark.parametrize("configured", [False, True])
def test_a_runs_own_workers_have_certificates_of_their_own(
    ours: Papers, gpu_groups: bool, configured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Dask's settings are those for a cluster, whose certificate is one for a client alone."""
    spoken: list[str] = []
    if gpu_groups:
        monkeypatch.setattr(cluster, "visible_devices", lambda: ["0", "1"])
        monkeypatch.setattr(cluster, "packages_are_here", lambda: True)
    options = ClusterOptions(workers=1, gpus_per_model=2 if gpu_groups else 1)
    with dask.config.set(ours.settings if configured else {}), cluster.connected(options) as client:
        parts = client.scheduler_info(n_workers=-1)
        spoken += [parts["address"], *parts["workers"]]
        plain = parts["address"].replace("tls://", "tcp://")
        with pytest.raises((OSError, RuntimeError), match=r"reset|[Tt]imed out|encryption required"):
            asyncio.run(connect(plain, timeout=5))
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        for address in spoken:
            assert "certificate required" in why_turned_away(address, trusting)
    assert len(spoken) == 2
    assert all(address.startswith("tls://127.0.0.1:") for address in spoken)
