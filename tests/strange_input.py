"""Hand over what nobody meant: settings, replies of services and chat templates that are nearly right.

``test_strange_input.py`` tries some in each run of the tests, ``benchmarks/fuzz_readers.py`` as many as there
is time for. Each check returns what became of its case, in a word; an error of a bug comes out as it is.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import services
import tiny
import yaml
from struck_inputs import Draws, struck

from assay.config.endpoints import read_endpoints
from assay.config.options import RunOptions, options_from, read_config_file
from assay.config.yaml_text import NotYAML, parsed_yaml
from assay.core.errors import UserMistake
from assay.core.schema import Message
from assay.rewards.remote.endpoints import KINDS, backend_class
from assay.rewards.remote.replies import Reply, UnreadableReply
from assay.rewards.remote.transport import patience_asked_for
from assay.rewards.templates import Chain, ChatTemplate, Refused, TemplateProcess

#: What YAML is made of, and what its readers stumble over.
_YAML = (
    *("model", "input", "output", "keep", "limit", "export", "workers", "kind", "url", "attributes", "judge"),
    *(
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n- ",
        "- ",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "? ",
        "| ",
        ">-\n ",
        "#",
        "---\n",
        "...",
    ),
    *("&a ", "*a", "<<: ", "!!int ", "!!bool ", "!!float ", "!!binary ", "!!timestamp ", "!!set ", "!!omap "),
    *("!!python/object/apply:os.system ", "!", "%YAML 9.9\n", "%TAG ! x\n", "'", '"', "\\ud800", "\\0", "\t"),
    *(
        "starter",
        "true",
        "null",
        "~",
        ".inf",
        ".nan",
        "-1",
        "1e400",
        "0x10",
        "0o8",
        "1_0",
        "9" * 5000,
        "1:99:1",
    ),
    *("2001-13-41", "2001-02-30T25:00:00Z", "helpfulness >= 1", "\ufeff", "\x85", "\u2028", "\x07", "é"),
)
#: What templates are made of.
_JINJA = (
    *(
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{%- ",
        " -%}",
        "{# ",
        " #}",
        "for m in messages",
        "endfor",
        "endif",
        "else",
    ),
    *(
        "if m.role == 'user'",
        "set x = ",
        "m.content",
        "m['content']",
        "messages",
        "messages[0]",
        "loop.index0",
    ),
    *("tools", "bos_token", "generation", "endgeneration", "macro f(a)", "endmacro", "f(f)", "f(1)", "break"),
    *(
        "range(99999999)",
        "'x' * 9999999999",
        "10 ** 10 ** 10",
        "x.__class__",
        "x | attr('__init__')",
        "cycler",
    ),
    *("namespace(a=1)", "x | tojson", "x | join(x)", "x | string", "[x, x]", "{'a': x}", "x | map('upper')"),
    *(
        "raise_exception('no')",
        "strftime_now('%Y')",
        "lipsum()",
        "joiner()",
        "x | random",
        "(",
        ")",
        "[",
        "]",
    ),
    *("'", '"', "\\ud800", "\n", "include 'x'", "import 'x' as y", "extends 'x'", "block b", "endblock", "~"),
    *("x.format(x)", "'%s' % x", "'{0.__class__}'.format(x)", "x | pprint", "x | xmlattr", "not x", "x is x"),
)
_DECIMALS = ("0", "-1.5", "3.25", "0.000244140625", "120.5")


def made_of(parts: Sequence[str], draws: Draws) -> bytes:
    """A text of these parts, some of them struck."""
    count = draws.number(40)
    text = "".join(parts[draws.number(len(parts) - 1)] for _ in range(count))
    data = text.encode("utf-8", "surrogatepass")
    return struck(data, draws) if draws.number(3) == 0 else data


def _file(data: bytes) -> Path:
    memory = Path("/dev/shm")
    folder = Path(tempfile.gettempdir()) if not os.access(memory, os.W_OK) else memory
    path = folder / f"assay-strange-{os.getpid()}.yaml"
    path.write_bytes(data)
    return path


def check_settings(draws: Draws) -> str:
    """A config file and a list of services of the same bytes: values, or a mistake of the user."""
    data = made_of(_YAML, draws)
    path = _file(data)
    became = []
    try:
        for read in (_run_options, read_endpoints):
            try:
                read(path)
                became.append("read")
            except UserMistake:
                became.append("refused")
    finally:
        path.unlink()
    try:
        value = parsed_yaml(data.decode())
    except (NotYAML, UnicodeDecodeError):
        return " and ".join(became)
    if _is_plain(value):
        again = parsed_yaml(yaml.safe_dump(value, allow_unicode=True))
        assert again == value, f"{value!r} is read back as {again!r}"
    return " and ".join([*became, "parsed"])


def _run_options(path: Path) -> RunOptions:
    filed = read_config_file(str(path), RunOptions)
    typed = {"input": ["chats.jsonl"], "output": "out"}
    return options_from(RunOptions, typed=typed, filed=filed, config_file=str(path))


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether PyYAML writes and reads it as it is: no bytes, dates, sets, NaN, and nothing within itself."""
    if depth > 20:
        return False
    if isinstance(value, list):
        return all(_is_plain(one, depth + 1) for one in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one, depth + 1) for key, one in value.items())
    if isinstance(value, str):
        return value.isprintable()
    return (
        value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    )


def _openai(names: Sequence[str], values: Sequence[float]) -> bytes:
    return json.dumps(services.completion(list(zip(names, values, strict=True)))).encode()


def _vllm(names: Sequence[str], values: Sequence[float]) -> bytes:
    return json.dumps({"data": [{"probs": list(values), "data": list(values)}]}).encode()


def _tei(names: Sequence[str], values: Sequence[float]) -> bytes:
    named = [{"label": name, "score": value} for name, value in zip(names, values, strict=True)]
    return json.dumps([named]).encode()


def _sglang(names: Sequence[str], values: Sequence[float]) -> bytes:
    return json.dumps([{"embedding": list(values)}]).encode()


def _triton(names: Sequence[str], values: Sequence[float]) -> bytes:
    rewards = {"name": "rewards", "datatype": "FP32", "shape": [1, len(values)], "data": list(values)}
    exceeded = {"name": "exceeded", "datatype": "BOOL", "shape": [1, 1], "data": [False]}
    return json.dumps({"model_name": "m", "model_version": "1", "outputs": [rewards, exceeded]}).encode()


def _triton_binary(values: Sequence[float]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a reply whose numbers follow the JSON."""
    data = b"".join(struct.pack("<f", value) for value in values)
    rewards = {"name": "rewards", "datatype": "FP32", "shape": [1, len(values)]}
    parameters = {"parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"model_name": "m", "outputs": [rewards | parameters]}).encode()
    return {"inference-header-content-length": str(len(head))}, head + data


_SPOKEN: dict[str, Callable[[Sequence[str], Sequence[float]], bytes]] = {
    "openai": _openai,
    "vllm-classify": _vllm,
    "vllm-pooling": _vllm,
    "tei-pair": _tei,
    "sglang": _sglang,
    "nemo-triton": _triton,
}
#: What a service may put in the place of a number, a list or an object.
_INSTEAD = (
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b'"3"', b"[]", b"{}", b"[[]]", b'{"a": [1]}', b'""'),
    *(b"9" * 5000, b"[" * 100_000, b'{"a":' * 100_000, b"<html>", b"\xff\xfe", b"\\ud800", b"-0", b"0x1"),
)
_VALUE = re.compile(rb'-?[\d.]+|true|false|null|"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}')
_HEADERS = (
    *("application/json", "text/html", "0", "-1", "5", "99999999999", "1e9", "nan", "inf", "-inf", ""),
    *("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 0 00:00:00 +9999999"),
    *("１２", "1_0", "0x10", "\udcff", "Mon, 1 Jan 1 1:1:1", "1, 2"),
)


@cache
def _backend(kind: str, attributes: tuple[str, ...]) -> Any:
    endpoint = services.endpoint("http://127.0.0.1:9", kind, attributes=attributes)
    return backend_class(endpoint)(endpoint, httpx2.AsyncClient(), None)


def check_reply(draws: Draws) -> str:
    """A reply: as it should be, its scores; otherwise finite numbers, or a reason why there are none."""
    kind = tuple(_SPOKEN)[draws.number(len(_SPOKEN) - 1)]
    names = KINDS[kind].outputs or (services.HELPSTEER, services.HELPSTEER[:1])[draws.number(1)]
    values = [float(_DECIMALS[draws.number(len(_DECIMALS) - 1)]) for _ in names]
    headers: dict[str, str] = {}
    body = _SPOKEN[kind](names, values)
    if is_binary := kind == "nemo-triton" and draws.number(1) == 1:
        headers, body = _triton_binary(values)
    backend = _backend(kind, tuple(names))
    assert backend.scores(Reply(200, headers, body)) == tuple(values)
    headers |= {
        name: _HEADERS[draws.number(len(_HEADERS) - 1)]
        for name in ("content-type", "retry-after", "date", "inference-header-content-length")
        if draws.number(5) == 0
    }
    if replaced := draws.number(1) == 1:
        places = [found.span() for found in _VALUE.finditer(body)]
        begin, end = places[draws.number(len(places) - 1)]
        body = body[:begin] + _INSTEAD[draws.number(len(_INSTEAD) - 1)] + body[end:]
    else:
        body = struck(body, draws)
    reply = Reply(200, headers, body)
    wait = patience_asked_for(reply)
    assert wait is None or 0 <= wait < math.inf
    try:
        found = backend.scores(reply)
    except UnreadableReply:
        return "no scores"
    assert len(found) == len(names)
    assert all(isinstance(one, float) and math.isfinite(one) for one in found)
    if replaced and not is_binary:
        # No other number was put into the JSON, so there is none but those that the service gave.
        assert {*found} <= {*values, 0.0}
    return "as it was" if found == tuple(values) else "other scores"


_CHAT = (Message("user", "What is near the mill?"), Message("assistant", "A brook."))
_PLAIN = ChatTemplate(tiny.PLAIN, ())


def check_template(draws: Draws, process: TemplateProcess) -> str:
    """A text or a refusal; the template that comes after it gets its text."""
    source = made_of(_JINJA, draws).decode(errors="ignore")
    ((found,),) = process.render(ChatTemplate(source, (("bos_token", "<s>"),)), [Chain(_CHAT, (2,))])
    assert process.render(_PLAIN, [Chain(_CHAT, (2,))]) == [
        ["user: What is near the mill?\nassistant: A brook.\n"]
    ]
    if isinstance(found, Refused):
        assert found.words
        return "stopped" if found.beyond_limits else "refused"
    return "rendered"
