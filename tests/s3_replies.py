"""Replies of S3 that a test gives in the place of the server."""

from __future__ import annotations

import io
from collections.abc import Iterator

from botocore.awsrequest import AWSResponse


class _Body(io.BytesIO):
    """Bytes that botocore reads as it reads a socket."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.getvalue()


def reply(url: str, status: int, body: bytes) -> AWSResponse:
    """What botocore takes for the server's reply to a request of that address."""
    return AWSResponse(url, status, {}, _Body(body))
