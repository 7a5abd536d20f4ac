"""The operator's list of reward services: a YAML file with one entry per name.

    nemotron-340b:
      kind: openai
      url: https://integrate.api.nvidia.com/v1
      model: nvidia/nemotron-4-340b-reward
      attributes: [helpfulness, correctness, coherence, complexity, verbosity]
      key_variable: NVIDIA_API_KEY

No message of this module repeats a value from the file, because somebody may have put a key into it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from assay.config.yaml_text import NotYAML, parsed_yaml
from assay.core.errors import UserMistake
from assay.core.schema import ATTRIBUTES, REWARD
from assay.core.text import did_you_mean
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.addresses import why_url_refused
from assay.rewards.remote.endpoints import KINDS
from assay.storage.regular import read_regular

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Names of fields that people use for the key itself.
_KEYS_THEMSELVES = ("key", "api_key", "apikey", "token", "secret", "password", "authorization", "bearer")


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"should be one of {', '.join(KINDS)}")
    return kind


def _known_attributes(names: list[str]) -> list[str]:
    known = (*ATTRIBUTES, REWARD)
    if len(set(names)) < len(names):
        raise ValueError("holds a name twice")
    if set(names) - set(known):
        raise ValueError(f"should be some of {', '.join(known)}")
    return names


class EndpointSettings(BaseModel):
    """One endpoint, as in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Annotated[str, AfterValidator(_known_kind)]
    url: str
    model: str = Field(min_length=1)
    attributes: Annotated[list[str], AfterValidator(_known_attributes)] = Field(min_length=1)
    outputs: list[str] | None = Field(default=None, min_length=1)
    revision: str = ""
    key_variable: str | None = None
    key_block: str | None = None
    tokenizer: Path | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_characters: int | None = Field(default=None, ge=1)
    in_flight: int = Field(default=16, ge=1, le=4096)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_seconds: float = Field(default=120.0, gt=0)
    deadline_seconds: float = Field(default=600.0, gt=0)
    longest_wait_seconds: float = Field(default=120.0, ge=0)
    price_per_request: float = Field(default=0.0, ge=0)
    price_per_million_tokens: float = Field(default=0.0, ge=0)
    currency: str = Field(default="USD", max_length=8)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        kind = KINDS[self.kind]
        has_key = self.key_variable is not None or self.key_block is not None
        if reason := why_url_refused(self.url, has_key=has_key):
            raise ValueError(f"url: {reason}")
        if self.key_variable is not None and self.key_block is not None:
            raise ValueError("key_variable and key_block: state one of them")
        if self.key_variable is not None and not _VARIABLE.fullmatch(self.key_variable):
            raise ValueError("key_variable: must be the name of an environment variable, not a key")
        if kind.needs_tokenizer and self.tokenizer is None:
            raise ValueError(f"tokenizer: is needed, because kind {self.kind} takes rendered text")
        if self.max_tokens is not None and self.tokenizer is None:
            raise ValueError("max_tokens: needs a tokenizer to count with; or state max_characters")
        if kind.truncates and self.max_tokens is None and self.max_characters is None:
            raise ValueError(
                f"max_characters: is needed, or tokenizer and max_tokens, because kind {self.kind} cuts long "
                "texts and does not report it"
            )
        missing = set(self.attributes) - set(self._outputs())
        if missing:
            raise ValueError(f"attributes: {', '.join(sorted(missing))} must be among outputs")
        return self

    def _outputs(self) -> tuple[str, ...]:
        return tuple(self.outputs or KINDS[self.kind].outputs or self.attributes)

    def to_endpoint(self, name: str, folder: Path) -> Endpoint:
        """The endpoint of that name. A tokenizer's relative path counts from ``folder``."""
        given = self.model_dump()
        given.update(
            name=name,
            url=self.url.rstrip("/"),
            attributes=tuple(self.attributes),
            outputs=self._outputs(),
            tokenizer=str((folder / self.tokenizer.expanduser()).resolve()) if self.tokenizer else None,
        )
        return Endpoint(**given)


def read_endpoints(path: Path) -> dict[str, Endpoint]:
    """The endpoints of the file, by name. UserMistake names the file, the endpoint and the field."""
    try:
        content: Any = parsed_yaml(read_regular(path).decode("utf-8"))
    except OSError as error:
        raise UserMistake(f"ASSAY_ENDPOINTS_FILE: {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, NotYAML) as error:
        line = getattr(error, "line", None)
        where = f"{path}:{line}" if line else str(path)
        raise UserMistake(f"{where}: not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserMistake(f"{path}: must be a list of endpoints by name; see docs/services.md")
    endpoints: dict[str, Endpoint] = {}
    for name, fields in content.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserMistake(f"{path}: an endpoint's name is made of letters, digits and . _ / -")
        if not isinstance(fields, dict):
            raise UserMistake(f"{path}: {name}: must hold kind, url, model and attributes")
        if not all(isinstance(field, str) for field in fields):
            raise UserMistake(f"{path}: {name}: the name of a field must be a word")
        endpoints[name] = _read(path, name, fields)
    return endpoints


def _read(path: Path, name: str, fields: dict[str, Any]) -> Endpoint:
    for field in fields:
        if field.lower().replace("-", "_") in _KEYS_THEMSELVES:
            raise UserMistake(
                f"{path}: {name}: the file must not hold a key: put it into an environment variable and "
                "state key_variable, or into a Prefect Secret block and state key_block"
            )
        if field not in EndpointSettings.model_fields:
            meant = did_you_mean(field, EndpointSettings.model_fields)
            raise UserMistake(f"{path}: {name}: unknown field {field[:40]!r}{meant}")
    try:
        return EndpointSettings.model_validate(fields).to_endpoint(name, path.parent)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in found["loc"])
        said = found["msg"].removeprefix("Value error, ")
        if found["type"] == "missing":
            said = "is required"
    # Raised outside the handler, so that the refused value does not become the mistake's cause.
    raise UserMistake(f"{path}: {name}: {field + ': ' if field else ''}{said[:1].lower()}{said[1:]}")
