"""Objects on S3, below one prefix: listed, read, and put whole, also on a condition. Only this speaks to S3.

Credentials, region and endpoint are found where botocore looks for them: the environment
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``), a profile, the machine's role. Nothing of them is kept here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from assay.core.errors import StoreFault, StoreRefusal

#: Requests that go out at a time, at most.
CONNECTIONS = 16

_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[^/\s]+)*)/?")
SCHEME = "s3://"

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_READ_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 20

# A condition of a PUT that was not met: the object is there, is another, is gone, or is being written.
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}

_RIGHTS = {"listed": "s3:ListBucket", "read": "s3:GetObject", "written": "s3:PutObject"}

_ADVICE = {
    "NoSuchBucket": "there is no such bucket: make it, or name another",
    "AccessDenied": "these credentials may not do that; it takes {right}",
    "InvalidAccessKeyId": "the key of these credentials is not known there",
    "SignatureDoesNotMatch": "the secret of these credentials is not right",
    "ExpiredToken": "these credentials have expired",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
}


def is_remote(path: str) -> bool:
    """Whether that means to name something on S3."""
    return path.startswith(SCHEME)


def is_address(text: str) -> bool:
    """Whether that is ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is there."""

    name: str
    """Below the prefix."""
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """What an object held when it was read."""

    data: bytes
    etag: str


class Objects:
    """The objects below ``s3://BUCKET/PREFIX``.

    Every method raises StoreFault where S3 does not answer, StoreRefusal where it answers with a no.
    """

    def __init__(self, address: str, *, seconds: float | None = None) -> None:
        matched = _ADDRESS.fullmatch(address)
        assert matched is not None, address
        self.address = address.rstrip("/")
        self._seconds = seconds
        self._bucket = matched["bucket"]
        self._prefix = f"{matched['prefix'].lstrip('/')}/".lstrip("/")

    def below(self, name: str) -> Objects:
        """The objects below that name."""
        return Objects(f"{self.address}/{name}")

    def asked_once(self, seconds: float) -> Objects:
        """The same, but a request is given up where S3 is silent for so long, and is not repeated."""
        return Objects(self.address, seconds=seconds)

    def check(self) -> None:
        """Raise unless they can be listed."""
        with self._told("listed") as client:
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def list(self) -> Iterator[Found]:
        """Yield the objects directly below the prefix, by name."""
        return self._listed(self._prefix, Delimiter="/")

    def list_all(self, beginning: str) -> Iterator[Found]:
        """Yield the objects whose names begin so, at any depth, by name."""
        return self._listed(self._prefix + beginning)

    def _listed(self, prefix: str, **how: str) -> Iterator[Found]:
        with self._told("listed") as client:
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, **how):
                for one in page.get("Contents", ()):
                    yield Found(one["Key"].removeprefix(self._prefix), one["ETag"], one["Size"])

    def read(self, name: str) -> Content | None:
        """The object's content; None where there is none of the name. It is held in memory."""
        with self._told("read", name) as client:
            from botocore.exceptions import BotoCoreError, ClientError

            for attempt in range(_READ_ATTEMPTS):
                try:
                    answer = client.get_object(Bucket=self._bucket, Key=self._prefix + name)
                    return Content(answer["Body"].read(), answer["ETag"])
                except ClientError as error:
                    if error.response["Error"]["Code"] == "NoSuchKey":
                        return None
                    raise
                except BotoCoreError:
                    # The request itself is botocore's to repeat; a body that breaks off is ours.
                    if attempt + 1 == _READ_ATTEMPTS:
                        raise
        raise AssertionError

    def chunks(self, name: str, *, etag: str) -> Iterator[bytes]:
        """Yield the object's content in parts; not all of it where it is not what it was under ``etag``."""
        with self._told("read", name) as client:
            from botocore.exceptions import BotoCoreError, ClientError

            size = failures = 0
            while True:
                rest = {"Range": f"bytes={size}-"} if size else {}
                try:
                    answer = client.get_object(
                        Bucket=self._bucket, Key=self._prefix + name, IfMatch=etag, **rest
                    )
                    for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                        size += len(chunk)
                        failures = 0
                        yield chunk
                    return
                except ClientError as error:
                    if error.response["Error"]["Code"] in _UNMET:
                        return
                    raise
                except BotoCoreError:
                    failures += 1
                    if failures == _READ_ATTEMPTS:
                        raise

    def put(self, name: str, data: bytes) -> str:
        """The ETag of the object that now holds the data, whatever it held before. One request."""
        with self._told("written", name) as client:
            return self._put(client, name, data)

    def create(self, name: str, data: bytes) -> str | None:
        """The new object's ETag; None where there is one already, which is left as it is."""
        return self._put_if(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, *, etag: str) -> str | None:
        """The object's ETag now; None where it is not what it was under ``etag``, and is left as it is."""
        return self._put_if(name, data, IfMatch=etag)

    def _put_if(self, name: str, data: bytes, **condition: str) -> str | None:
        with self._told("written", name) as client:
            from botocore.exceptions import ClientError

            try:
                return self._put(client, name, data, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] in _UNMET:
                    return None
                raise

    def _put(self, client: Any, name: str, data: bytes, **condition: str) -> str:
        answer = client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data, **condition)
        return str(answer["ETag"])

    @contextmanager
    def _told(self, what: str, name: str = "") -> Iterator[Any]:
        """Yield the client, and turn its errors into ours: one line, with the address and what to do."""
        client = _client() if self._seconds is None else _client(self._seconds)
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        address = f"{self.address}/{name}".rstrip("/")
        try:
            yield client
        except ClientError as error:
            code = str(error.response["Error"].get("Code", "no code"))
            said = " ".join(str(error.response["Error"].get("Message", "")).split())
            advice = _ADVICE.get(code, "").format(right=_RIGHTS[what]) or said or "S3 gave no reason"
            raise StoreRefusal(f"{address}: cannot be {what} ({code}): {advice}") from error
        except NoCredentialsError as error:
            raise StoreRefusal(
                f"{address}: cannot be {what}: no credentials are found. Set AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a machine with a role"
            ) from error
        except BotoCoreError as error:
            said = " ".join(str(error).split()).rstrip(".")
            raise StoreFault(
                f"{address}: cannot be {what}: {said}. What is stored by then stays, and the same command "
                "goes on from there"
            ) from error


@functools.cache
def _client(seconds: float | None = None) -> Any:
    """This process's connections to S3. botocore repeats what fails in passing, as AWS_MAX_ATTEMPTS says.

    With ``seconds`` it waits no longer than that, and repeats nothing.
    """
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise StoreRefusal(f"the package {error.name} for S3 is missing: pip install -e '.[s3]'") from error
    config = Config(
        connect_timeout=seconds or _CONNECT_SECONDS,
        read_timeout=seconds or _READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1} if seconds else None,
    )
    try:
        return botocore.session.Session().create_client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreRefusal(f"the settings for S3 are wrong: {error}") from error
