"""A model's chat template: messages in, the text that the model reads out. It runs in another process."""

from __future__ import annotations

import atexit
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.core.calls import Json, shown_calls
from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import REASONING_FIELDS, Message
from assay.rewards import template_process
from assay.rewards.template_process import (
    BEGINNING,
    BEYOND,
    CPU_SECONDS,
    FRAME,
    REPLY,
    TEXT,
    decoded,
    encoded,
)
from assay.storage.regular import read_json_object

#: Templates that print today's date get this one, or a score would change overnight. It is the date that
#: Llama 3's own template falls back to where no clock is given (meta-llama/Llama-3.1-8B-Instruct).
TEMPLATE_DATE = datetime.datetime(2024, 7, 26)

#: Put in front of a template that asks for the clock: it is the only one there is.
_STOPPED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{part}', '{TEMPLATE_DATE.strftime(f'%{part}')}')" for part in "aAbBdjHIMmpSyY")
    + " }}{%- endmacro -%}"
)

#: The special tokens that a template may name, as transformers hands them to it.
_NAMED_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

#: What a model that has several templates calls the one for conversations with tools.
_TOOL_USE = "tool_use"

#: Beginnings of one conversation that may each take all the time there is, before the rest is refused.
_MOST_SLOW = 2

#: Characters of conversations that are sent at a time.
_FRAME_CHARACTERS = 1 << 22

_PIPE_BYTES = 1 << 16

#: How a process ends that a template brought to its end.
_ENDED_BY_ITSELF = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a template gives no text."""

    words: str
    """The template's own where it says something, else what went wrong."""
    beyond_limits: bool = False
    """Whether it was stopped, for the time, the memory or the characters that it took."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A conversation, and how many of its first messages are to be rendered: some counts, in order."""

    messages: Sequence[Message]
    counts: tuple[int, ...]
    tools: str | None = None
    """The tools that the template is given, as a JSON array."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template with what it may know beside the messages."""

    source: str
    tokens: tuple[tuple[str, str], ...]
    """Names of special tokens, such as ``bos_token``, and their texts."""
    tool_source: str | None = None
    """The template for conversations with tools, where there is one apart."""

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate:
        """The one that this tokenizer of transformers renders with. ``UserMistake`` where it has none."""
        if not tokenizer.chat_template:
            raise _without(tokenizer.name_or_path)
        try:
            source = tokenizer.get_chat_template()
        except ValueError as error:
            raise UserMistake(
                f"{tokenizer.name_or_path}: it has several chat templates, and none is the default; put the "
                "one that the model was trained with into chat_template.jinja"
            ) from error
        named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
        return cls(
            _with_stopped_clock(source), tuple(tokenizer.special_tokens_map.items()), _for_tools(named)
        )

    def render(self, chains: Sequence[Chain]) -> list[list[str | Refused]]:
        """For each chain a text or a refusal for each of its counts."""
        if self.tool_source is None or not any(chain.tools is not None for chain in chains):
            return PROCESS.render(self, chains)
        with_tools = replace(self, source=self.tool_source, tool_source=None)
        return [
            PROCESS.render(with_tools if chain.tools is not None else self, [chain])[0] for chain in chains
        ]

    def text(self, messages: Sequence[Message], tools: str | None = None) -> str | Refused:
        """All the messages as the template writes them, or why it does not."""
        ((text,),) = self.render([Chain(messages, (len(messages),), tools)])
        return text


def why_no_template(folder: Path) -> str | None:
    """Why the tokenizer in a folder has no chat template to render with; None where it has one.

    Several templates need one among them that is called ``default``, which transformers renders with.
    """
    if (folder / "chat_template.jinja").is_file():
        return None
    source = _json(folder / "tokenizer_config.json").get("chat_template")
    named = (
        [str(one.get("name")) for one in source if isinstance(one, dict)] if isinstance(source, list) else []
    )
    named += sorted(path.stem for path in folder.glob("additional_chat_templates/*.jinja"))
    if isinstance(source, str) and source:
        return None
    if "default" in named and isinstance(source, list):
        return None
    if named:
        return f"it has chat templates that are called {', '.join(named)}, and none is the default"
    if (folder / "chat_template.json").is_file():
        return (
            "its chat template is in chat_template.json, which is a processor's and which no tokenizer reads"
        )
    return "no chat template"


def named_token(folder: Path, name: str) -> str:
    """The text of a special token such as ``cls_token``, as the files in the folder name it; empty if not."""
    settings = {**_json(folder / "special_tokens_map.json"), **_json(folder / "tokenizer_config.json")}
    return _content(settings.get(name))


def template_in(folder: Path) -> ChatTemplate | None:
    """The template of the tokenizer in a folder, without loading that; None where there is none to be seen.

    Special tokens that the files do not name are empty, where transformers may know them from the
    tokenizer's class: enough to see what a template shows, not to score with.
    """
    settings = {**_json(folder / "special_tokens_map.json"), **_json(folder / "tokenizer_config.json")}
    source = settings.get("chat_template")
    file = folder / "chat_template.jinja"
    named: dict[str, Any] = {}
    if file.is_file():
        source = _text_in(file)
        for_tools = folder / "additional_chat_templates" / f"{_TOOL_USE}.jinja"
        if for_tools.is_file():
            named = {_TOOL_USE: _text_in(for_tools)}
    elif isinstance(source, list):
        named = {str(one.get("name")): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise UserMistake(f"{folder / 'tokenizer_config.json'}: its chat_template is no text")
    tokens = {name: _content(settings.get(name)) for name in _NAMED_TOKENS}
    return ChatTemplate(_with_stopped_clock(source), tuple(tokens.items()), _for_tools(named))


def _for_tools(named: Mapping[str, Any]) -> str | None:
    """The template that transformers takes where there are tools; None where it takes the same for all."""
    source = named.get(_TOOL_USE)
    return _with_stopped_clock(source) if isinstance(source, str) else None


def _text_in(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserMistake(f"{file}: cannot be read as text: {error}") from error


def _with_stopped_clock(source: str) -> str:
    return (_STOPPED_CLOCK if "strftime_now" in source else "") + source


def _content(token: Any) -> str:
    """The text of a token, which a tokenizer's settings hold as a string or as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _json(path: Path) -> dict[str, Any]:
    """The object in this file; nothing where there is no such file. ``UserMistake`` where it is no JSON."""
    return read_json_object(path) if path.is_file() else {}


def _without(name: str) -> UserMistake:
    return UserMistake(
        f"{name}: this model's tokenizer has no chat template, so a conversation cannot be rendered for it; "
        "add a chat_template.jinja to its folder"
    )


class _Died(Exception):
    """The process is gone."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class TemplateProcess:
    """The process of ``template_process``, started when it is first needed, and anew after it has died."""

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, template: ChatTemplate, chains: Sequence[Chain]) -> list[list[str | Refused]]:
        """For each chain a text or a refusal for each of its counts."""
        texts: list[list[str | Refused]] = []
        with self._lock:
            for batch in _batches(chains):
                texts += self._parted(template, batch)
        return texts

    def close(self) -> None:
        """End the process, if there is one that is not at work; one at work ends with this process."""
        if self._lock.acquire(timeout=1):
            try:
                if self._child is not None:
                    self._died()
            finally:
                self._lock.release()

    def forget(self) -> None:
        """In a fork of this process: the child is the parent's."""
        self._lock = threading.Lock()
        if self._child is not None and self._child.stdin is not None:
            # Held open here, the pipe would keep the child waiting when the parent is gone.
            os.close(self._child.stdin.fileno())
        self._child = None

    def _parted(self, template: ChatTemplate, batch: list[Chain]) -> list[list[str | Refused]]:
        """The texts of all of them; who ends the process is searched for by halves."""
        texts = self._together(template, batch)
        if texts is not None:
            return texts
        if len(batch) == 1:
            return [self._one_by_one(template, batch[0])]
        half = len(batch) // 2
        return self._parted(template, batch[:half]) + self._parted(template, batch[half:])

    def _one_by_one(self, template: ChatTemplate, chain: Chain) -> list[str | Refused]:
        """The texts of its beginnings, shortest first; after some that were too slow the rest is refused."""
        texts: list[str | Refused] = []
        for count in chain.counts:
            if texts.count(self._too_slow) < _MOST_SLOW:
                texts.append(self._alone(template, chain, count))
            else:
                words = f"{_MOST_SLOW} shorter beginnings took more than {self._cpu_seconds:g} seconds each"
                texts.append(Refused(words, beyond_limits=True))
        return texts

    @property
    def _too_slow(self) -> Refused:
        return Refused(f"it takes more than {self._cpu_seconds:g} seconds", beyond_limits=True)

    def _together(self, template: ChatTemplate, batch: list[Chain]) -> list[list[str | Refused]] | None:
        """The texts of all of them; None where one of them ends the process: it is not known which."""
        if len(batch) == 1 and len(batch[0].counts) == 1:
            return None
        try:
            return self._asked(template, batch)
        except _Died:
            return None

    def _alone(self, template: ChatTemplate, chain: Chain, count: int) -> str | Refused:
        """The text of one beginning. Who ends the process is refused, and nobody for what another did."""
        code = 0
        for _ in range(2):
            try:
                ((text,),) = self._asked(template, [replace(chain, counts=(count,))])
            except _Died as died:
                code = died.code
                if code == -signal.SIGPROF:
                    return self._too_slow
            else:
                return text
        if -code in _ENDED_BY_ITSELF:
            name = signal.Signals(-code).name
            return Refused(f"it ends the process in which it runs ({name})", beyond_limits=True)
        raise ModelFault(
            f"the process that renders chat templates ends at once, twice ({_ending(code)}); it is "
            f"{sys.executable} with {template_process.__file__}, and needs jinja2 and some memory"
        )

    def _asked(self, template: ChatTemplate, chains: Sequence[Chain]) -> list[list[str | Refused]]:
        """What the process replies. ``_Died`` where it ended meanwhile."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", template_process.__file__, str(self._cpu_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=_PIPE_BYTES,
                # Ctrl-C at a terminal is for the run, which has texts to come from here until it ends.
                start_new_session=True,
            )
        assert self._child.stdin is not None
        try:
            for part in _frame(template, chains):
                self._child.stdin.write(part)
            self._child.stdin.flush()
            return [self._replies(len(chain.counts)) for chain in chains]
        except _Died:
            raise
        except OSError:
            raise self._died() from None
        except BaseException:
            # Interrupted: the replies that are still to come must not be taken for those of the next texts.
            if self._child is not None:
                self._child.kill()
                self._died()
            raise

    def _replies(self, count: int) -> list[str | Refused]:
        """As many replies, turned round: the process begins with the longest text."""
        texts: list[str | Refused] = []
        longest = None
        for _ in range(count):
            kind, size = REPLY.unpack(self._read(REPLY.size))
            if kind == BEGINNING:
                assert longest is not None
                texts.append(longest[:size])
                continue
            text = decoded(self._read(size))
            texts.append(text if kind == TEXT else Refused(text, beyond_limits=kind == BEYOND))
            if kind == TEXT and longest is None:
                longest = text
        return texts[::-1]

    def _read(self, size: int) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        content = self._child.stdout.read(size)
        if len(content) < size:
            raise self._died()
        return content

    def _died(self) -> _Died:
        """The process let go of, and how it ended."""
        child, self._child = self._child, None
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        for pipe in (child.stdin, child.stdout):
            try:
                pipe.close()
            except OSError:
                continue  # what was not written yet is for nobody
        return _Died(child.wait())


def _frame(template: ChatTemplate, chains: Sequence[Chain]) -> list[bytes]:
    """What is asked, in the parts that the process takes."""
    contents: list[bytes] = []
    conversations: list[tuple[list[_Entry], tuple[int, ...], Json]] = []
    for chain in chains:
        messages = chain.messages[: max(chain.counts, default=0)]
        texts = [encoded(message.content) for message in messages]
        entries = [
            (message.role, len(text)) if type(message) is Message else _entry(message, len(text))
            for message, text in zip(messages, texts, strict=True)
        ]
        conversations.append(
            (entries, chain.counts, None if chain.tools is None else json.loads(chain.tools))
        )
        contents += texts
    asked = {"source": template.source, "tokens": template.tokens, "conversations": conversations}
    head, body = json.dumps(asked).encode(), b"".join(contents)
    return [FRAME.pack(len(head), len(body)), head, body]


#: A message's role, the bytes of its content, and its fields where it has some.
_Entry = tuple[str, int] | tuple[str, int, dict[str, Json]]


def _entry(message: Message, size: int) -> _Entry:
    """The message with the fields that a template is given: none that is null, as ``'name' in message`` asks.

    Without a content, ``content_is`` says what stands in its place.
    """
    fields = message.fields
    texts = {
        name: getattr(fields, name) for name in (*REASONING_FIELDS, "tool_call_id", "name", "content_is")
    }
    given: dict[str, Json] = {name: text for name, text in texts.items() if text is not None}
    if fields.tool_calls is not None:
        given["tool_calls"] = json.loads(shown_calls(fields.tool_calls))
    return message.role, size, given


def _batches(chains: Sequence[Chain]) -> Iterator[list[Chain]]:
    """Yield the chains in order, as many at a time as have ``_FRAME_CHARACTERS``."""
    batch: list[Chain] = []
    characters = 0
    for chain in chains:
        own = sum(_characters(message) for message in chain.messages) + len(chain.tools or "")
        if batch and characters + own > _FRAME_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(chain)
        characters += own
    if batch:
        yield batch


def _characters(message: Message) -> int:
    calls = 0 if type(message) is Message else len(message.fields.tool_calls or "")
    return len(message.content) + calls


def _ending(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with code {code}"


#: Where all templates of this process run.
PROCESS = TemplateProcess()
atexit.register(PROCESS.close)
os.register_at_fork(after_in_child=PROCESS.forget)
