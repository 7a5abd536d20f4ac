"""Which messages a template shows is seen before any score, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import Message
from assay.rewards import templates
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.probing import Shown, probed, unseen_by_turn, unseen_in
from assay.rewards.protocol import Request
from assay.rewards.rendering import Renderer
from assay.rewards.templates import ChatTemplate, TemplateProcess

MARKED = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
BEGINNING, LATER, TOOL = "system messages at the beginning", "later system messages", "tool messages"
GREETING = "assistant messages before any user's"
TWO_USERS = "one of two user messages in a row"
TWO_ASSISTANTS = "one of two assistant messages in a row"


def each(shown: str, *, of: str = "messages") -> str:
    """A template that writes this of every message."""
    return "{% for m in " + of + " %}" + MARKED % shown + "{% endfor %}"


WHOLE = each("{{ m.content }}")

#: What does no harm: the words are there.
SHOWS_ALL = {
    "as it is": WHOLE,
    "stripped": each("{{ m.content | trim }}"),
    "upper case": each("{{ m.content | upper }}"),
    "escaped": each("{{ m.content | e }}"),
    "as JSON": each("{{ m | tojson }}"),
    "with the words in lines": each("{{ m.content.split() | join('\n') }}"),
    "cut where nobody writes as much": each("{{ m.content[:9000] }}"),
    "reasoning left out": each("{{ m.content.split('</think>')[-1] }}"),
}


@pytest.mark.parametrize("name", SHOWS_ALL)
def test_a_template_that_shows_every_word_is_taken(name: str) -> None:
    assert probed(ChatTemplate(SHOWS_ALL[name], ())) == Shown(None)


@pytest.mark.parametrize("name", sorted(set(tiny.TEMPLATES) - {"moving-system"}))
def test_templates_of_published_models_show_everything(name: str) -> None:
    assert probed(ChatTemplate(tiny.TEMPLATES[name], ())) == Shown(None)


#: Templates, and what of an ordinary conversation they leave out.
SHOWS_TOO_LITTLE = {
    "parts": (
        each("{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"),
        "message 1 (user), 2 (assistant) of 2: it reads a message as a list of parts, and here a message is",
    ),
    "nothing": (each(""), "message 1 (user), 2 (assistant) of 2: different conversations would get the same"),
    "another field": (each("{{ m.text }}"), "message 1 (user), 2 (assistant) of 2"),
    "no user": (each("{% if m.role != 'user' %}{{ m.content }}{% endif %}"), "message 1 (user) of 2"),
    "no assistant": (
        each("{% if m.role == 'user' %}{{ m.content }}{% endif %}"),
        "message 2 (assistant) of 2",
    ),
    "the last exchange": (
        each("{{ m.content }}", of="messages[-2:]"),
        "message 1 (user), 2 (assistant), 3 (user), 4 (assistant), 5 (user), 6 (assistant) of 8",
    ),
    "the last user message": (
        "{{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | list | last }}"
        "{{ messages[-1].content }}",
        "message 1 (user), 2 (assistant), 3 (user), 4 (assistant), 5 (user), 6 (assistant) of 8",
    ),
    "no first answer": (
        each("{% if m.role == 'user' or loop.index0 > 2 or loop.last %}{{ m.content }}{% endif %}"),
        "message 2 (assistant) of 8",
    ),
    "the last answer": (
        each("{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}"),
        "message 2 (assistant), 4 (assistant), 6 (assistant) of 8",
    ),
    "the beginning of each": (each("{{ m.content[:4096] }}"), "message 1 (user), 2 (assistant) of 2"),
    "the first line": (each("{{ m.content.split('\n')[0] }}"), "message 1 (user), 2 (assistant) of 2"),
    "the end of each": (each("{{ m.content[-4096:] }}"), "message 1 (user), 2 (assistant) of 2"),
    "a system message in place of the user's": (
        "{% if messages[0].role == 'system' %}"
        + each("{% if m.role != 'user' %}{{ m.content }}{% endif %}")
        + "{% else %}"
        + WHOLE
        + "{% endif %}",
        "message 2 (user) of 3",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWS_TOO_LITTLE)
def test_a_template_that_leaves_out_what_user_or_assistant_say_is_refused(name: str) -> None:
    source, words = SHOWS_TOO_LITTLE[name]
    shown = probed(ChatTemplate(source, ()))
    assert shown.refusal is not None
    assert f"its chat template does not show the whole text of {words}" in shown.refusal


#: Templates, and what else they leave out.
LEAVES_OUT = {
    "no system": (each("{% if m.role != 'system' %}{{ m.content }}{% endif %}"), (BEGINNING, LATER)),
    "an early system message": (
        each("{% if m.role != 'system' or loop.first %}{{ m.content }}{% endif %}"),
        (LATER,),
    ),
    "no tool": (each("{% if m.role != 'tool' %}{{ m.content }}{% endif %}"), (TOOL,)),
    "a tool's result cut short": (
        each("{% if m.role == 'tool' %}{{ m.content[:500] }}{% else %}{{ m.content }}{% endif %}"),
        (TOOL,),
    ),
    "no greeting": (
        each("{% if m.role != 'assistant' or not loop.first %}{{ m.content }}{% endif %}"),
        (GREETING,),
    ),
    "the last of several": (
        each("{% if loop.last or loop.nextitem.role != m.role %}{{ m.content }}{% endif %}"),
        (TWO_USERS, TWO_ASSISTANTS),
    ),
    "moving system": (tiny.MOVING_SYSTEM, (LATER, TOOL)),
}


@pytest.mark.parametrize("name", LEAVES_OUT)
def test_what_else_a_template_leaves_out_is_named(name: str) -> None:
    source, unseen = LEAVES_OUT[name]
    assert probed(ChatTemplate(source, ())) == Shown(None, unseen)


def test_a_template_that_raises_for_a_role_shows_the_others() -> None:
    for role in ("system", "tool"):
        strict = (
            "{% for m in messages %}{% if m.role == '" + role + "' %}{{ raise_exception('No.') }}{% endif %}"
        )
        assert probed(ChatTemplate(strict + "{% endfor %}" + WHOLE, ())) == Shown(None)
    wants_system = "{% if messages[0].role != 'system' %}{{ raise_exception('No.') }}{% endif %}"
    assert probed(ChatTemplate(wants_system + WHOLE, ())) == Shown(None)
    one_question = "{% if messages | length > 2 %}{{ raise_exception('No.') }}{% endif %}"
    assert probed(ChatTemplate(one_question + WHOLE, ())) == Shown(None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('Not for chats.') }}", "of a question and an answer: Not for chats."),
        (
            "{{ 1 // 0 }}",
            "of a question and an answer: ZeroDivisionError: integer division or modulo by zero",
        ),
        ("{% if %}", "of a question and an answer: Expected an expression, got 'end of statement block'"),
        (
            "{{ 'x' * 3 * 10**9 }}" + WHOLE,
            "stopped at a conversation of a few messages: it takes more than 1 GiB",
        ),
        (
            "{% if messages[2].role == 'tool' %}{{ 'x' * 3 * 10**9 }}{% endif %}" + WHOLE,
            "stopped at a conversation of a few messages: it takes more than 1 GiB",
        ),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + WHOLE,
            "stopped at a conversation of a few messages: it takes more than 0.3 seconds",
        ),
    ],
)
def test_a_template_without_bounds_is_refused_and_its_words_are_reported(
    source: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = TemplateProcess(cpu_seconds=0.3)
    monkeypatch.setattr(templates, "PROCESS", process)
    shown = probed(ChatTemplate(source, ()))
    process.close()
    assert shown.refusal is not None
    assert words in shown.refusal


def test_turns_are_marked_from_the_first_unseen_message_on() -> None:
    roles = ["user", "assistant", "system", "user", "assistant", "user", "user", "assistant", "tool"]
    assert unseen_by_turn(roles, ()) == [False, False, False]
    assert unseen_by_turn(roles, (BEGINNING, TOOL, GREETING)) == [False, False, False]
    assert unseen_by_turn(roles, (LATER,)) == [False, True, True]
    assert unseen_by_turn(roles, (TWO_USERS, TWO_ASSISTANTS)) == [False, False, True]
    assert unseen_by_turn(["system", "assistant", "assistant"], (GREETING,)) == [True, True]
    assert unseen_by_turn(["user", "assistant", "assistant"], (TWO_ASSISTANTS,)) == [False, True]
    assert unseen_by_turn(["system", "user", "assistant"], (BEGINNING,)) == [True]
    assert unseen_by_turn(["user", "assistant", "tool", "assistant"], (TOOL,)) == [False, True]


@pytest.mark.slow
def test_a_model_whose_template_shows_no_text_is_refused_before_any_work_and_when_opened(
    tmp_path: Path,
) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    spec = tiny.spec(folder)
    assert spec.unseen == ()
    (folder / "chat_template.jinja").write_text(SHOWS_TOO_LITTLE["parts"][0])
    with pytest.raises(
        UserMistake, match=r"model .*: its chat template does not show the whole text of message 1"
    ):
        tiny.spec(folder)
    with pytest.raises(ModelFault, match="does not show the whole text of message 1"):
        LocalRewardModel(spec)


def test_a_template_that_refuses_what_stands_for_the_texts_is_reported_without_a_traceback() -> None:
    picky = "{% if messages[0].content == 'x' and messages[-1].role == 'tool' or messages | length == 5 and "
    picky += "messages[0].content == 'x' %}{{ raise_exception('Not x.') }}{% endif %}" + WHOLE
    renderer = Renderer(tiny.tokenizer(picky), max_tokens=500, over_length="quarantine")
    roles = ("user", "assistant", "user", "user", "assistant")
    (rendered,) = renderer.render([Request(tuple(Message(role, "Hi") for role in roles), (0, 1))])
    assert rendered.refused == {1: "template_refused: with 'x' for every text: Not x."}
    assert [read.turn for one in rendered.passes for read in one.reads] == [0]


def test_a_template_that_wants_a_system_message_is_opened_whether_or_not_a_bos_is_added(
    tmp_path: Path,
) -> None:
    wants = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('No system message.') }}{% endif %}" + WHOLE
    )
    folder = tiny.reward_model(tmp_path / "model", template=wants)
    for add_bos in (None, True):
        model = LocalRewardModel(local_spec(str(folder), ModelOptions(add_bos=add_bos)))
        said = [Message("user", "Hi"), Message("assistant", "Hello")]
        asked = [Request(tuple(said), (0,)), Request((Message("system", "Be kind."), *said), (0,))]
        (refused,), (scored,) = model.score(asked)
        assert refused.reason == "template_refused: No system message."
        assert scored.values is not None


def test_marks_that_the_tokenizer_has_no_token_for_are_found() -> None:
    def marks(template: str) -> dict[str, int]:
        tokenizer = tiny.tokenizer(template)
        return Renderer(tokenizer, max_tokens=500, over_length="quarantine").marks_in_pieces()

    assert marks(tiny.CHATML) == {}
    assert marks(tiny.PLAIN) == {}
    assert set(marks(tiny.CHATML.replace("im_start", "turn"))) == {"<|turn|>"}
    assert set(marks(tiny.CHATML.replace("<|im_start|>", "<｜User｜>"))) == {"<｜User｜>"}


def test_a_template_whose_special_token_the_files_do_not_name_is_left_to_the_opening(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content.split(eos_token) | first }}{% endfor %}"
    )
    assert unseen_in("model", tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>"}')
    assert unseen_in("model", tmp_path) == ()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{{ ['a', 'bb'] | random }}", "drawing lots"),
        ("{{ messages | map('upper') }}", "where something lies in memory"),
    ],
)
def test_a_template_that_writes_other_things_each_time_is_refused(written: str, said: str) -> None:
    shown = probed(ChatTemplate(written + tiny.PLAIN, ()))
    assert shown.refusal is not None
    assert said in shown.refusal
