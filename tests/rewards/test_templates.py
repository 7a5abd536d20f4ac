"""Chat templates give transformers' own texts, and one that means harm is told in a line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.core.errors import ModelFault
from assay.core.schema import Message
from assay.rewards import template_process
from assay.rewards.templates import Chain, ChatTemplate, Refused, TemplateProcess, template_in

#: What templates of published models make use of, beside those of ``tiny``.
FEATURES = {
    "trained-parts": (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    ),
    "loop-controls": (
        "{% for m in messages %}\n  {% if m.role == 'tool' %}{% continue %}{% endif %}\n{{ m.content }}\n"
        "{% if loop.index > 2 %}{% break %}{% endif %}\n{% endfor %}"
    ),
    "json": "{{ messages | tojson }}{{ messages | tojson(indent=2, sort_keys=true) }}",
    "dict-and-namespace": (
        "{% set d = dict(a=1, b=messages[0].content) %}{% set ns = namespace(last='', n=0) %}"
        "{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.content %}{% endfor %}"
        "{{ d.b }}{{ d }}{{ ns.n }}{{ ns.last }}{{ dict.fromkeys(['x']) }}"
    ),
    "macro": (
        "{% macro one(m, n=0) %}{{ n }}. {{ m.role | title }}: {{ m['content'] | trim }}\n{% endmacro %}"
        "{% for m in messages %}{{ one(m, loop.index) }}{% endfor %}{{ bos_token is defined }}"
    ),
    "tools": "{% if tools is not none %}tools{% endif %}{{ documents }}{{ add_generation_prompt }}",
    "slices": "{{ messages[1:] | map(attribute='content') | join('|') }}{{ messages[::-1] | length }}",
    "undefined": "{{ messages[0].name }}{{ messages[0].name is defined }}{{ unknown | default('none') }}",
    "escapes": "{{ messages[0].content | e }}{{ '%s-%05d' | format(messages[0].role, 7) }}{{ '<%s>' % 'é' }}",
}
ALL = {**tiny.TEMPLATES, **FEATURES}
TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["\n", "  a ", "<think>x</think>y", "<|im_end|>", "𝄞"])
)
CHATS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS),
    min_size=1,
    max_size=6,
)


def said(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chat=CHATS)
def test_every_text_is_the_one_that_transformers_gives(name: str, chat: list[Message]) -> None:
    tokenizer = tiny.tokenizer(ALL[name])
    dicts = [{"role": message.role, "content": message.content} for message in chat]
    expected = [
        tokenizer.apply_chat_template(dicts[:count], tokenize=False) for count in range(1, len(chat) + 1)
    ]
    chain = Chain(chat, tuple(range(1, len(chat) + 1)))
    assert ChatTemplate.of(tokenizer).render([chain]) == [expected]


def test_the_template_of_a_folder_is_the_one_that_transformers_takes(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML + "{{ eos_token }}")
    tokenizer.eos_token = "<|eos|>"
    folders = []
    for new in (True, False):
        folders.append(tmp_path / str(new))
        tokenizer.save_pretrained(folders[-1], save_jinja_files=new)
    tokenizer.chat_template = {"default": tiny.PLAIN + "{{ eos_token }}", "tool_use": "x"}
    for new in (True, False):
        folders.append(tmp_path / f"several {new}")
        tokenizer.save_pretrained(folders[-1], save_jinja_files=new)
    for folder in folders:
        expected = ChatTemplate.of(transformers.AutoTokenizer.from_pretrained(folder))
        found = template_in(folder)
        assert found is not None
        assert found.source == expected.source
        assert found.text(said("Hi", "Hello")) == expected.text(said("Hi", "Hello"))
    (tmp_path / "empty").mkdir()
    assert template_in(tmp_path / "empty") is None


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess(cpu_seconds=0.3)
    yield process
    process.close()


#: Templates and what is told of them. `GREW` stands for a text or a list that is doubled 60 times.
GREW = "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = "
HOSTILE = {
    "{{ 1 // 0 }}": "ZeroDivisionError: integer division or modulo by zero",
    "{% for i in range(10**9) %}x{% endfor %}": "OverflowError: Range too big. The sandbox blocks",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "RecursionError: maximum recursion depth exceeded",
    "{{ 'x' * 3 * 10**9 }}": "it takes more than 1 GiB of memory",
    "{{ ('x' * messages | length) * 10**8 }}": "it writes 100,000,000 characters, and",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "more than 0.3 seconds",
    "{{ 10 ** (10 ** 10) }}": "it takes more than",
    "{{ '{:>3000000000}'.format('') }}": "it takes more than 1 GiB",
    "{{ '%03000000000d' % 1 }}": "it takes more than 1 GiB",
    "{{ 'x'.center(10**8) * 100 }}": "it takes more than 1 GiB",
    "{{ ('x' * 10**6) | replace('x', 'y' * 10**6) }}": "it takes more than 1 GiB",
    "{{ lipsum(10**8) }}": "'lipsum' is undefined",
    "{{ ['a', 'b'] | random }}": "drawing lots would give one conversation several scores",
    GREW + "ns.x ~ ns.x %}{% endfor %}{{ ns.x }}": "it takes more than",
    GREW + "[ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x | list }}{{ ns.x }}": "it takes more than",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}": "more",
    "{{ raise_exception('Say it in\n other words: ' ~ 'x' * 10**6) }}": "Say it in other words: xxx",
    "{{ raise_exception('') }}": "TemplateError: ",
    "{% for %}": "Expected an expression, got 'end of statement block'",
    "{{ messages[7].content.upper() + 1 }}": "list object has no element 7",
    "{{ ''.__class__.__mro__ }}": "access to attribute '__class__' of 'str' object is unsafe.",
    "{{ namespace(_x=1) }}": "a namespace may not hold '_x'",
    "{{ messages.append(1) }}": "access to attribute 'append' of 'list' object is unsafe.",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", HOSTILE)
def test_a_template_that_means_harm_is_reported_in_a_line(process: TemplateProcess, source: str) -> None:
    began = time.monotonic()
    ((refused,),) = process.render(ChatTemplate(source, ()), [Chain(said("Hi"), (1,))])
    assert isinstance(refused, Refused)
    assert HOSTILE[source] in refused.words
    assert "\n" not in refused.words
    assert len(refused.words) <= 520
    assert refused.beyond_limits == refused.words.startswith("it ")
    assert time.monotonic() - began < 30
    kind = ChatTemplate(tiny.PLAIN, ())
    assert process.render(kind, [Chain(said("Hi"), (1,))]) == [["user: Hi\n"]], "and the next is rendered"


@pytest.mark.slow
def test_of_many_only_the_conversation_that_brings_it_about_is_refused(process: TemplateProcess) -> None:
    busy = (
        "{% if messages[-1].content == 'bomb' %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}" + tiny.PLAIN
    )
    chats = [said("Hi", "one"), said("Hi", "bomb", "Hi", "two"), said("Hi", "three")]
    chains = [Chain(chat, tuple(range(2, len(chat) + 1, 2))) for chat in chats]
    (one,), (refused, two), (three,) = process.render(ChatTemplate(busy, ()), chains)
    assert refused == Refused("it takes more than 0.3 seconds", beyond_limits=True)
    assert (one, three) == ("user: Hi\nassistant: one\n", "user: Hi\nassistant: three\n")
    assert two == "user: Hi\nassistant: bomb\nuser: Hi\nassistant: two\n"


def _child(process: TemplateProcess) -> int:
    assert process._child is not None
    return process._child.pid


def test_a_process_that_somebody_ends_is_started_anew_and_no_template_is_blamed(
    process: TemplateProcess,
) -> None:
    template, chains = ChatTemplate(tiny.PLAIN, ()), [Chain(said("Hi"), (1,))]
    for number in (signal.SIGKILL, signal.SIGTERM):
        process.render(template, chains)
        os.kill(_child(process), number)
        assert process.render(template, chains) == [["user: Hi\n"]]


def test_a_process_that_does_not_start_is_a_fault_and_no_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "__file__", "/nowhere/template_process.py")
    with pytest.raises(ModelFault, match=r"ends at once, twice \(with code 2\)"):
        TemplateProcess().render(ChatTemplate(tiny.PLAIN, ()), [Chain(said("Hi"), (1,))])


def test_several_threads_get_their_own_texts(process: TemplateProcess) -> None:
    template = ChatTemplate(tiny.PLAIN, ())
    wrong = []

    def ask(name: str) -> None:
        for number in range(30):
            text = f"{name} {number} " * 2000
            found = process.render(template, [Chain(said(text), (1,))])
            if found != [[f"user: {text}\n"]]:
                wrong.append(text[:20])

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_more_than_a_pipe_holds_goes_through_both_ways(process: TemplateProcess) -> None:
    chats = [said("é" * 200_000, "𝄞" * 100_000, "x", str(number)) for number in range(40)]
    chains = [Chain(chat, (2, 4)) for chat in chats]
    found = process.render(ChatTemplate(tiny.PLAIN, ()), chains)
    assert [text[-4:] for _, text in found if isinstance(text, str)] == [f": {n}\n"[-4:] for n in range(40)]
    assert all(isinstance(whole, str) and whole.startswith(str(part)) for part, whole in found)


def is_gone(child: int, seconds: float = 10) -> bool:
    """Whether the process ends within so many seconds; one that nobody has waited for yet has ended."""
    stat = Path(f"/proc/{child}/stat")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, sys; from assay.rewards import templates as t; from assay.core.schema import Message;"
        "t.ChatTemplate('x', ()).text([Message('user', 'Hi')]); print(t.PROCESS._child.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert is_gone(int(killed.stdout))


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it_also_in_the_midst_of_a_text() -> None:
    code = (
        "import threading, time, os; from assay.rewards import templates as t\n"
        "from assay.core.schema import Message\n"
        "slow = '{% for i in range(9999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'\n"
        "chat = [Message('user', 'Hi')]\n"
        "t.ChatTemplate('x', ()).text(chat)\n"
        "ask = lambda: t.ChatTemplate(slow, ()).text(chat)\n"
        "threading.Thread(target=ask, daemon=True).start(); time.sleep(0.5)\n"
        "print(t.PROCESS._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert is_gone(int(killed.stdout), seconds=5)


def test_an_interrupted_rendering_leaves_nothing_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    process = TemplateProcess()
    template = ChatTemplate("{{ messages[0].content }}", ())
    read = process._read
    calls = iter(range(100))

    def interrupted(size: int) -> bytes:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return read(size)

    monkeypatch.setattr(process, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.render(template, [Chain(said(f"old {n}"), (1,)) for n in range(50)])
    monkeypatch.undo()
    texts = process.render(template, [Chain(said(f"new {n}"), (1,)) for n in range(3)])
    process.close()
    assert texts == [["new 0"], ["new 1"], ["new 2"]]


@pytest.mark.slow
def test_what_is_too_slow_is_tried_twice_a_conversation_and_not_once_a_turn(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(
        "{% if messages[0].content == 'slow' %}{% for i in range(9999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}{{ messages | length }}",
        (),
    )
    alone: list[Chain] = []
    one = process._alone

    def counted(template: ChatTemplate, chain: Chain, count: int) -> str | Refused:
        alone.append(chain)
        return one(template, chain, count)

    monkeypatch.setattr(process, "_alone", counted)
    slow = Chain(said("slow", *"abcdefg"), tuple(range(1, 9)))
    others = [Chain(said("quick", str(n)), (1, 2)) for n in range(6)]
    texts = process.render(template, [*others[:3], slow, *others[3:]])
    assert [one for place, one in enumerate(texts) if place != 3] == [["1", "2"]] * 6
    assert all(isinstance(text, Refused) and "more than 0.3 seconds" in text.words for text in texts[3])
    assert len(alone) == 2
