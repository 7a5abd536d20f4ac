"""Small JSON files that decide something. Each carries a digest of its content and of its subject.

The digest shows whether a file was cut, emptied, altered in one bit, or copied from another subject. This
module needs the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from assay.core.digests import digest_of_content

#: The key under which a file's own digest stands.
DIGEST = "digest"


class Altered(ValueError):
    """A file, or part of one, is not as Assay wrote it."""


def sealed(content: Mapping[str, Any], *, about: str) -> dict[str, Any]:
    """The content, which must be JSON's own types, with its digest as one more entry.

    >>> sealed({"lines": 3}, about="chats.jsonl")
    {'lines': 3, 'digest': 'b6ec12ea33d1d28a74168c1a1447b0e6'}
    """
    return {**content, DIGEST: _digest(content, about)}


def sealed_json(content: Mapping[str, Any], *, about: str) -> bytes:
    """The content and its digest as indented JSON, for a file."""
    return json.dumps(sealed(content, about=about), indent=1).encode()


def is_as_sealed(content: Mapping[str, Any], *, about: str) -> bool:
    """Whether the content has a digest that matches everything else in it."""
    return content.get(DIGEST) == _digest(_without_digest(content), about)


def unsealed(data: bytes | str, *, about: str) -> dict[str, Any]:
    """The content that ``sealed`` was given, read from its JSON; Altered where the digest does not match."""
    content = decoded(data)
    if not is_as_sealed(content, about=about):
        raise Altered("its digest does not match its content")
    return _without_digest(content)


def decoded(data: bytes | str) -> dict[str, Any]:
    """The JSON object, without a check of its digest; Altered where the data hold no JSON object."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Altered(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Altered("no JSON object")
    return content


def _without_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != DIGEST}


def _digest(content: Mapping[str, Any], about: str) -> str:
    """BLAKE2b-128 of content and subject, as 32 hex digits; the order of keys does not matter."""
    text = json.dumps([about, content], sort_keys=True, separators=(",", ":"))
    return digest_of_content(text.encode())
