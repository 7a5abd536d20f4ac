"""A process of its own in which chat templates run: each is a stranger's program, and is held to limits.

It is started as a script, with nothing of this package imported, and ends with whoever started it. What is
to be rendered comes on its standard input, one frame after another; texts and refusals go to its standard
output. A process can be held to limits that no thread can: one expression of a template, such as
``'x' * 3 * 10**9``, runs for as long and takes as much memory as it likes, and lets nobody else in.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

#: CPU seconds for one conversation. An ordinary one takes some 50 microseconds.
CPU_SECONDS = 10.0
#: Memory beside what the conversations themselves need.
MEMORY_BYTES = 1 << 30
#: Bytes that a byte of a frame may become on the way: text as strings, put together, and encoded.
_BYTES_A_FRAME_BYTE = 20
#: Characters that a template may write beside the messages, and times that it may write each of them.
MOST_CHARACTERS = 1 << 20
MOST_REPEATS = 16

#: What stands in front of every frame: the bytes of what is asked, as JSON, and those of all contents, which
#: follow it one after another.
FRAME = struct.Struct("<QQ")
#: What stands in front of every reply: what it is, and its size.
REPLY = struct.Struct("<BQ")
#: A text, in so many bytes of UTF-8.
TEXT = 0
#: A text that is the beginning of the one before, of so many characters.
BEGINNING = 1
#: Why the template does not render this, in so many bytes of UTF-8.
REFUSED = 2
#: The same, where the template ran into a limit.
BEYOND = 3

#: Templates kept compiled.
_MOST_TEMPLATES = 8
_MOST_WORDS = 500

Chat = list[dict[str, Any]]
Render = Callable[[Chat, Any], str]

#: Fields of reasoning in the order in which transformers takes the first that is there, for all of them
#: (chat_template_utils._alias_reasoning_fields, 5.24).
REASONING = ("reasoning_content", "thinking", "reasoning")


def encoded(text: str) -> bytes:
    """UTF-8. Half of a surrogate pair is let through: whether it can be tokenized is not for here."""
    return text.encode("utf-8", "surrogatepass")


def decoded(content: bytes) -> str:
    """The text that ``encoded`` made."""
    return content.decode("utf-8", "surrogatepass")


def _serve(requests: BinaryIO, replies: BinaryIO, cpu_seconds: float) -> None:
    """Answer frames until there are no more; ``cpu_seconds`` are allowed for each text."""
    templates: dict[Any, Render] = {}
    while header := requests.read(FRAME.size):
        sizes = FRAME.unpack(header)
        _allow_memory(MEMORY_BYTES + _BYTES_A_FRAME_BYTE * sum(sizes))
        asked = json.loads(requests.read(sizes[0]))
        contents = io.BytesIO(requests.read(sizes[1]))
        key = (asked["source"], tuple(map(tuple, asked["tokens"])))
        template = templates.get(key)
        if template is None:
            if len(templates) == _MOST_TEMPLATES:
                templates.clear()
            template = templates[key] = _template(asked["source"], dict(asked["tokens"]))
        for messages, counts, tools in asked["conversations"]:
            chat = [_message(*entry, contents=contents) for entry in messages]
            for kind, content in _answers(template, chat, counts, tools, cpu_seconds):
                replies.write(REPLY.pack(kind, len(content) if isinstance(content, bytes) else content))
                if isinstance(content, bytes):
                    replies.write(content)
        replies.flush()


def _message(
    role: str, size: int, fields: Mapping[str, Any] | None = None, *, contents: BinaryIO
) -> dict[str, Any]:
    """The message as transformers hands it to a template."""
    message: dict[str, Any] = {"role": role, "content": decoded(contents.read(size))}
    if fields is None:
        return message
    message.update(fields)
    content_is = message.pop("content_is", None)
    if content_is == "null":
        message["content"] = None
    elif content_is == "missing":
        del message["content"]
    reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _answers(
    template: Render, chat: Chat, counts: Sequence[int], tools: Any, cpu_seconds: float
) -> Iterator[tuple[int, bytes | int]]:
    """Yield a reply for each count of messages, the last first: most others are beginnings of that one."""
    longest = None
    for count in reversed(counts):
        kind, text = _rendered(template, chat[:count], tools, cpu_seconds)
        if kind == TEXT and longest is not None and longest.startswith(text):
            yield BEGINNING, len(text)
            continue
        if kind == TEXT and longest is None:
            longest = text
        try:
            content = encoded(text)
        except MemoryError:
            kind, content = BEYOND, b"it takes too much memory"
        yield kind, content


#: How often it is looked whether the process that started this one is still there.
_LOOK_SECONDS = 0.5


def _rendered(template: Render, chat: Chat, tools: Any, cpu_seconds: float) -> tuple[int, str]:
    """What came of it, and the text or the words of a refusal.

    Who takes longer than allowed is ended by the kernel: no handler of Python's would run in the midst of
    an expression.
    """
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        text = template(chat, tools)
    except MemoryError:
        return BEYOND, f"it takes more than {MEMORY_BYTES >> 30} GiB of memory"
    except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything
        return REFUSED, _words(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    allowed = MOST_CHARACTERS + MOST_REPEATS * (
        _characters(chat) + (0 if tools is None else len(json.dumps(tools)))
    )
    if len(text) > allowed:
        return BEYOND, f"it writes {len(text):,} characters, and {allowed:,} are allowed for such messages"
    return TEXT, text


def _characters(chat: Chat) -> int:
    """Of all that the messages hold besides their roles."""
    return sum(
        len(value) if isinstance(value, str) else len(json.dumps(value))
        for message in chat
        for name, value in message.items()
        if name != "role"
    )


def _words(error: Exception) -> str:
    from jinja2 import TemplateError

    words = " ".join(str(error)[: 2 * _MOST_WORDS].split())[:_MOST_WORDS]
    # What a template says by `raise_exception` is for people; anything else is known by its name.
    return words if isinstance(error, TemplateError) and words else f"{type(error).__name__}: {words}"


def _template(source: str, values: Mapping[str, str]) -> Render:
    """What renders messages; compiled when it is first asked, within the limits of that rendering."""
    compiled: list[Any] = []

    def render(chat: Chat, tools: Any) -> str:
        if not compiled:
            compiled.append(_environment().from_string(source))
        text: str = compiled[0].render(
            messages=chat, tools=tools, documents=None, add_generation_prompt=False, **values
        )
        return text

    return render


def _environment() -> Any:
    """Jinja as transformers sets it up for chat templates, of which tests compare every text."""
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %} … {% endgeneration %}``: marks what is trained on, and writes what is in it."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

        def parse(self, parser: Any) -> nodes.Node:
            """The block's content, called as Jinja calls a block: names set within stay within."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

        def written(self, caller: Callable[[], str]) -> str:
            """The content as it is."""
            return caller()

    class Namespace(jinja2.utils.Namespace):
        """Jinja's, without names that Python keeps for itself."""

        def __init__(*args: Any, **attributes: Any) -> None:
            self, *rest = args
            given = dict(*rest, **attributes)
            for name in given:
                _check_name(name)
            jinja2.utils.Namespace.__init__(self, given)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    def _check_name(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace may not hold {name!r}")

    class Dict:
        """``dict(…)`` and ``dict.fromkeys(…)``, and nothing else of the type."""

        def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
            """The dict of these items."""
            return dict(*args, **items)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            """The dict of these keys."""
            return dict.fromkeys(*args)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def draw_lots(*given: Any) -> None:
        raise jinja2.TemplateError("drawing lots would give one conversation several scores")

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    # One conversation is to have one text, whenever it is written.
    environment.filters["random"] = draw_lots
    del environment.globals["lipsum"]
    environment.globals.update(raise_exception=raise_exception, dict=Dict(), namespace=Namespace)
    return environment


def _allow_memory(total: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (total if most == resource.RLIM_INFINITY else min(total, most), most)
    )


def _hold_to_limits() -> None:
    """Have the kernel end whoever takes too long, whatever the process that started this one does."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, whatever is being rendered."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    _hold_to_limits()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with open(sys.stdout.fileno(), "wb", buffering=1 << 16, closefd=False) as replies:
        _serve(sys.stdin.buffer, replies, float(sys.argv[1]))
