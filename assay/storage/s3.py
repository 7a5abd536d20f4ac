"""Objects on S3 below one prefix: list, read, write whole, write on a condition. No other module uses S3.

botocore finds credentials, region and endpoint by itself: in the environment (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``), a profile, or the machine's role. This module keeps none of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from assay.core.errors import StoreFault, StoreRefusal

#: The most requests at a time.
CONNECTIONS = 16

_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[^/\s]+)*)/?")
SCHEME = "s3://"

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_READ_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 20
_NOT_FOUND = 404

# S3's codes for a condition that is not met: the object exists, has changed, is gone, or is being written.
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}

_RIGHTS = {
    "listed": "s3:ListBucket",
    "read": "s3:GetObject",
    "written": "s3:PutObject",
    "removed": "s3:DeleteObject",
}

_ADVICE = {
    "NoSuchBucket": "there is no such bucket: make it, or name another",
    "AccessDenied": "these credentials may not do that; they need {right}",
    "InvalidAccessKeyId": "S3 does not know the key of these credentials",
    "SignatureDoesNotMatch": "the secret of these credentials is wrong",
    "ExpiredToken": "these credentials have expired",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
}


def is_remote(path: str) -> bool:
    """Whether the path begins with ``s3://``."""
    return path.startswith(SCHEME)


def is_address(text: str) -> bool:
    """Whether the text is a valid ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Found:
    """An object as a listing shows it."""

    name: str
    """Its name below the prefix."""
    etag: str
    size: int
    written: float = field(default=0.0, compare=False)
    """When it was last written, in seconds since 1970, by the clock of S3."""


@dataclass(frozen=True, slots=True)
class Content:
    """An object's content, with the ETag that it had when it was read."""

    data: bytes
    etag: str
    written: float
    """When it was last written, in seconds since 1970, by the clock of S3."""


class Objects:
    """The objects below ``s3://BUCKET/PREFIX``.

    Every method raises StoreFault where S3 does not answer, StoreRefusal where it refuses.
    """

    def __init__(self, address: str, *, seconds: float | None = None) -> None:
        matched = _ADDRESS.fullmatch(address)
        assert matched is not None, address
        self.address = address.rstrip("/")
        self._seconds = seconds
        self._bucket = matched["bucket"]
        self._prefix = f"{matched['prefix'].lstrip('/')}/".lstrip("/")

    def below(self, name: str) -> Objects:
        """The objects below ``PREFIX/name``."""
        return Objects(f"{self.address}/{name}")

    def without_retries(self, seconds: float) -> Objects:
        """The same objects, but a request fails after so many seconds of silence, and is not repeated."""
        return Objects(self.address, seconds=seconds)

    def check(self) -> None:
        """Raise unless the objects can be listed."""
        with self._client_for("listed") as client:
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def list(self) -> Iterator[Found]:
        """Yield the objects directly below the prefix, in the order of their names."""
        return self._listed(self._prefix, Delimiter="/")

    def list_all(self, beginning: str) -> Iterator[Found]:
        """Yield the objects at any depth whose names have this beginning, in the order of their names."""
        return self._listed(self._prefix + beginning)

    def _listed(self, prefix: str, **how: str) -> Iterator[Found]:
        with self._client_for("listed") as client:
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, **how):
                for one in page.get("Contents", ()):
                    name = one["Key"].removeprefix(self._prefix)
                    yield Found(name, one["ETag"], one["Size"], one["LastModified"].timestamp())

    def read(self, name: str) -> Content | None:
        """The object's content, all of it in memory; None where there is no such object."""
        with self._client_for("read", name) as client:
            from botocore.exceptions import BotoCoreError, ClientError

            for attempt in range(_READ_ATTEMPTS):
                try:
                    answer = client.get_object(Bucket=self._bucket, Key=self._prefix + name)
                    written = answer["LastModified"].timestamp()
                    return Content(answer["Body"].read(), answer["ETag"], written)
                except ClientError as error:
                    if error.response["Error"]["Code"] == "NoSuchKey":
                        return None
                    raise
                except BotoCoreError:
                    # botocore repeats a request that fails. A body that breaks off is read again here.
                    if attempt + 1 == _READ_ATTEMPTS:
                        raise
        raise AssertionError

    def written(self, name: str) -> float | None:
        """When the object was last written, in seconds since 1970; None if there is no such object."""
        with self._client_for("read", name) as client:
            from botocore.exceptions import ClientError

            try:
                about = client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == _NOT_FOUND:
                    return None
                raise
        return float(about["LastModified"].timestamp())

    def write_again(self, name: str) -> None:
        """Have S3 copy the object onto itself, so that it counts as written now, if it is still there."""
        with self._client_for("written", name) as client:
            from botocore.exceptions import ClientError

            key = self._prefix + name
            try:
                client.copy_object(
                    Bucket=self._bucket,
                    Key=key,
                    CopySource={"Bucket": self._bucket, "Key": key},
                    # S3 refuses to copy an object onto itself unless its metadata are replaced.
                    MetadataDirective="REPLACE",
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchKey":
                    raise

    def remove(self, name: str) -> None:
        """Remove the object, if there is one."""
        with self._client_for("removed", name) as client:
            client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def chunks(self, name: str, *, etag: str) -> Iterator[bytes]:
        """Yield the object's content in parts; stop early where it no longer has the ``etag``."""
        with self._client_for("read", name) as client:
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
        """Write the object whatever it held before, in one request. Returns its new ETag."""
        with self._client_for("written", name) as client:
            return self._put(client, name, data)

    def create(self, name: str, data: bytes) -> str | None:
        """The new object's ETag; None where one of that name exists, which stays as it is."""
        return self._put_if(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, *, etag: str) -> str | None:
        """The object's new ETag; None where it no longer has the ``etag``, and then it stays as it is."""
        return self._put_if(name, data, IfMatch=etag)

    def _put_if(self, name: str, data: bytes, **condition: str) -> str | None:
        with self._client_for("written", name) as client:
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
    def _client_for(self, what: str, name: str = "") -> Iterator[Any]:
        """Yield the client, and turn its errors into ours: one line with the address and what to do."""
        client = _client() if self._seconds is None else _client(self._seconds)
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        address = f"{self.address}/{name}".rstrip("/")
        try:
            yield client
        except ClientError as error:
            code = str(error.response["Error"].get("Code", "no code"))
            message = " ".join(str(error.response["Error"].get("Message", "")).split())
            advice = _ADVICE.get(code, "").format(right=_RIGHTS[what]) or message or "S3 gave no reason"
            raise StoreRefusal(f"{address}: cannot be {what} ({code}): {advice}") from error
        except NoCredentialsError as error:
            raise StoreRefusal(
                f"{address}: cannot be {what}: no credentials were found. Set AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a machine with a role"
            ) from error
        except BotoCoreError as error:
            message = " ".join(str(error).split()).rstrip(".")
            raise StoreFault(
                f"{address}: cannot be {what}: {message}. What is stored stays, and the same command goes on "
                "from there"
            ) from error


@functools.cache
def _client(seconds: float | None = None) -> Any:
    """This process's client for S3. botocore repeats a failed request up to AWS_MAX_ATTEMPTS times.

    With ``seconds`` it waits no longer than that, and repeats nothing.
    """
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise StoreRefusal(f"S3 needs the package {error.name}: pip install -e '.[s3]'") from error
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
