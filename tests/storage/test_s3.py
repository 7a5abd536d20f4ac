"""Objects are put on conditions that S3 keeps, and whatever S3 says no to is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore.session
import pytest
from places import ROOT

from assay.core.errors import StoreFault, StoreRefusal, UserMistake
from assay.score.segments import check_store
from assay.storage import s3 as module
from assay.storage.home import Home
from assay.storage.s3 import Objects, is_address


def test_an_object_is_created_once_and_replaced_by_who_knows_what_it_was(bucket: str) -> None:
    objects = Objects(bucket)
    assert objects.read("one") is None
    first = objects.create("one", b"a")
    assert first is not None
    assert objects.create("one", b"b") is None
    second = objects.replace("one", b"c", etag=first)
    assert second is not None
    assert objects.replace("one", b"d", etag=first) is None
    assert objects.replace("absent", b"d", etag=first) is None
    content = objects.read("one")
    assert content is not None
    assert (content.data, content.etag) == (b"c", second)


def test_only_what_lies_directly_below_is_listed_and_all_of_it(bucket: str) -> None:
    objects = Objects(bucket)
    for number in range(3):
        objects.put(f"{number}", b"")
    objects.below("deeper").put("other", b"")
    Objects(f"{bucket}-and-more").put("other", b"")
    assert [one.name for one in objects.list()] == ["0", "1", "2"]
    assert [one.name for one in objects.below("deeper").list()] == ["other"]


def test_a_listing_of_several_pages_is_whole(bucket: str) -> None:
    objects = Objects(bucket)
    for number in range(7):
        objects.put(f"{number}", b"")
    module._client().meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 3}
    )
    assert len(list(objects.list())) == 7


@pytest.mark.parametrize("address", ["s3://team", "s3://team/a", "s3://my-team.2/a/b-c/", "s3://abc/x=1"])
def test_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "team/a", "s3:/team", "s3://", "s3://T/a", "http://team/a", "s3://team//a", "s3://team/a b"],
)
def test_what_is_no_address(address: str) -> None:
    assert not is_address(address)


def refusal(address: str) -> str:
    with pytest.raises(UserMistake) as refused:
        check_store(Home(Path("unused"), address))
    said = str(refused.value)
    assert said.startswith("ASSAY_SCORE_STORE: ")
    assert "\n" not in said
    return said


def test_a_bucket_that_is_not_there_is_the_users_mistake(s3: str) -> None:
    assert "s3://absent-bucket/x: cannot be listed (NoSuchBucket): there is no such bucket" in refusal(
        "s3://absent-bucket/x"
    )


def test_without_credentials_it_is_said_how_to_give_them(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    module._client.cache_clear()
    assert "no credentials were found. Set AWS_PROFILE" in refusal(bucket)


def test_a_profile_that_is_not_there_is_the_users_mistake(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    module._client.cache_clear()
    assert "the settings for S3 are wrong" in refusal(bucket)


def test_a_server_that_is_not_there_is_a_fault_and_reported_in_a_line(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    module._client.cache_clear()
    with pytest.raises(StoreFault, match=r"cannot be listed: Could not connect .*127\.0\.0\.1:9") as fault:
        check_store(Home(Path("unused"), bucket))
    assert not isinstance(fault.value, StoreRefusal)
    assert "\n" not in str(fault.value)


@contextmanager
def guarded(s3: str) -> Iterator[None]:
    """Meanwhile the server looks at who asks, and at what they may do."""

    def look_after(requests: bytes) -> None:
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{s3}/moto-api/reset-auth", requests, text))

    look_after(b"0")
    try:
        yield
    finally:
        look_after(b"inf")


@pytest.fixture
def own_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of this test's own: what it asks of one client it asks of all."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    module._client.cache_clear()
    yield address
    module._client.cache_clear()
    server.stop()


@pytest.fixture
def own_bucket(own_s3: str) -> str:
    """A bucket on that server."""
    module._client().create_bucket(Bucket="guarded")
    return "s3://guarded/scores"


@pytest.mark.slow
def test_unknown_credentials_are_reported_without_the_secret(own_bucket: str, own_s3: str) -> None:
    with guarded(own_s3):
        said = refusal(own_bucket)
    assert "cannot be listed (InvalidAccessKeyId): S3 does not know the key of these credentials" in said
    assert "canary" not in said


@pytest.mark.slow
def test_a_right_that_is_missing_is_named(
    own_bucket: str, own_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = botocore.session.get_session().create_client("iam")
    iam.create_user(UserName="reader")
    may = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    module._client.cache_clear()
    with guarded(own_s3):
        check_store(Home(Path("unused"), own_bucket))
        with pytest.raises(StoreRefusal) as refused:
            Objects(own_bucket).put("one", b"")
    assert str(refused.value) == (
        f"{own_bucket}/one: cannot be written (AccessDenied): these credentials may not do that; "
        "they need s3:PutObject"
    )


@pytest.mark.slow
def test_without_the_package_the_message_names_the_command_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from flows.command.curate import COMMAND\n"
        "from flows.command.launch import launch\n"
        "sys.exit(launch(COMMAND, ['--input', 'samples', '--output', sys.argv[1]]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        env={**os.environ, "ASSAY_HOME": str(tmp_path), "ASSAY_SCORE_STORE": "s3://team/scores"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: ASSAY_SCORE_STORE: ")
    assert line.endswith("pip install -e '.[s3]'")
