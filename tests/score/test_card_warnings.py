"""What a model's card does not vouch for is counted and said; the scores stay."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import handmade
import polars as pl
import pytest
import stages
import tiny
import transformers
from handmade import Record
from stages import Heard, decide

from assay.core.errors import UserMistake
from assay.core.schema import Message
from assay.core.versions import installed
from assay.read.languages import DETECTOR
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request
from assay.rewards.rendering import Renderer
from assay.score import card_warnings
from assay.score.scoring import SCORE, ToScore
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.storage.manifests import Converted
from assay.workers.cluster import ClusterOptions

ENGLISH = "The quick brown fox jumps over the lazy dog."
CHINESE = "请用一句话介绍北京这座城市的历史和文化以及它的主要景点和特色美食。"
GERMAN = "Erzähl mir bitte etwas über die längsten Flüsse der Welt."


def converted(home: Home, texts: list[str]) -> Converted:
    records = [Record(n + 1, (("user", text), ("assistant", text))) for n, text in enumerate(texts)]
    return handmade.make(home, {"chat.jsonl": [records]}).converted


@pytest.mark.slow
def test_tokens_are_counted_of_a_turn_with_all_before_it(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", max_tokens=96)
    model = LocalRewardModel(tiny.spec(folder, ModelOptions(over_length="left-truncate")))
    messages = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "so " * 90))
    request = Request((*messages, Message("assistant", "Bye")), (0, 1))
    (outcomes,) = model.score([request])
    assert isinstance(model.renderer, Renderer)
    texts = [model.renderer.text(request.messages[:end]) for end in (2, 4)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    counted = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    assert [outcome.tokens for outcome in outcomes] == counted
    assert outcomes[1].tokens_cut == counted[1] - 96


def not_asked() -> pl.DataFrame:
    raise AssertionError("no language is needed")


@pytest.mark.slow
def test_conversations_beyond_the_trained_length_are_scored_counted_and_can_be_dropped(
    tmp_path: Path,
) -> None:
    spec = dataclasses.replace(tiny.spec(tiny.reward_model(tmp_path / "model")), trained_tokens=40)
    home, heard = Home(tmp_path / "home"), Heard()
    records = converted(home, ["Hi", "so " * 60, "Hello"])
    scored, _ = stages.score(records, spec, home=home, cluster=ClusterOptions(workers=1), progress=heard)
    assert scored.failed == {}
    assert scored.warnings == {"beyond_trained_length": 1, "unseen_text": 0}
    told = f"longer than the 40 tokens that it was trained on (per {spec.name}'s card)"
    assert f"warning: {told}: 1 conversation" in heard.lines
    rules = parse_rules(
        ["not beyond_trained_length"], attributes=spec.columns, flags=card_warnings.why_unknown(spec)
    )
    filtered = decide(records, scored, rules=rules, home=home)
    assert (filtered.counts.ok, filtered.counts.dropped) == (2, {"rule: not beyond_trained_length": 1})


@pytest.mark.slow
def test_conversations_in_another_language_are_counted_on_every_run_and_can_be_a_rule(tmp_path: Path) -> None:
    home, heard = Home(tmp_path / "home"), Heard()
    records = converted(home, [ENGLISH, CHINESE, GERMAN])
    model = dataclasses.replace(fakes.spec(tmp_path / "model"), languages=("en",))
    for _ in range(2):
        scored, work = stages.score(
            records, model, home=home, cluster=ClusterOptions(workers=1), progress=heard
        )
        assert scored.warnings == {"other_language": 2}
    assert work.turns_scored == 0, "counted, though nothing was left to be scored"
    told = "not in a language that the model supports (en, per fake's card)"
    assert heard.lines.count(f"warning: {told}: 2 conversations") == 2
    rules = parse_rules(
        ["other_language or helpfulness > 99"],
        attributes=model.columns,
        flags=card_warnings.why_unknown(model),
    )
    filtered = decide(records, scored, rules=rules, home=home)
    assert filtered.counts.ok == 2


@pytest.mark.slow
def test_other_languages_of_one_model_are_another_result_and_no_other_scores(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    records = converted(home, [ENGLISH, CHINESE])
    model = fakes.spec(tmp_path / "model")
    keys = set()
    for languages in ((), ("en",), ("en", "zh")):
        spoken = dataclasses.replace(model, languages=languages)
        scored, _ = stages.score(records, spoken, home=home, cluster=ClusterOptions(workers=1))
        keys.add(SCORE.digest(ToScore(records, spoken)))
    assert len(keys) == 3
    assert scored.warnings == {"other_language": 0}
    assert len(fakes.calls(tmp_path / "model")) == 2, "scored once"


def test_another_version_of_the_language_detector_is_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = converted(Home(tmp_path / "home"), [ENGLISH])
    without = fakes.spec(tmp_path / "model")
    model = dataclasses.replace(without, languages=("en",))
    before = [SCORE.digest(ToScore(records, one)) for one in (without, model)]
    for package in DETECTOR:
        versions = {**installed(*DETECTOR), package: "99.0"}
        monkeypatch.setattr(card_warnings, "installed", lambda *_, versions=versions: versions)
        assert SCORE.digest(ToScore(records, without)) == before[0]
        assert SCORE.digest(ToScore(records, model)) != before[1]


@pytest.mark.slow
def test_conversations_with_text_that_the_template_leaves_out_are_counted_and_can_be_a_rule(
    tmp_path: Path,
) -> None:
    no_tools = "{% for m in messages if m.role != 'tool' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    unseen = tiny.spec(tiny.reward_model(tmp_path / "tiny", template=no_tools)).unseen
    assert unseen == ("tool messages",)
    spec = dataclasses.replace(fakes.spec(tmp_path / "model"), unseen=unseen)
    home, heard = Home(tmp_path / "home"), Heard()
    tool = (("user", "Hi"), ("assistant", "Let me see."), ("tool", "42"), ("assistant", "It is 42."))
    chats = [
        (("user", "Hi"), ("assistant", "Hello")),
        tool,
        (*tool[:2], ("tool", "ignored, as nothing follows")),
    ]
    records = handmade.make(
        home, {"chat.jsonl": [[Record(n + 1, chat) for n, chat in enumerate(chats)]]}
    ).converted
    scored, _ = stages.score(records, spec, home=home, cluster=ClusterOptions(workers=1), progress=heard)
    assert scored.failed == {}
    assert scored.warnings == {"unseen_text": 1}
    told = f"shown to the model only in part: {spec.name}'s chat template leaves out tool messages"
    assert f"warning: {told}: 1 conversation" in heard.lines
    rules = parse_rules(["not unseen_text"], attributes=spec.columns, flags=card_warnings.why_unknown(spec))
    filtered = decide(records, scored, rules=rules, home=home)
    assert (filtered.counts.ok, filtered.counts.dropped) == (2, {"rule: not unseen_text": 1})


def test_a_system_message_is_marked_from_its_turn_on_where_the_card_asks_for_none(tmp_path: Path) -> None:
    turns = pl.DataFrame({"row": [4, 4, 7], "turn": [0, 1, 0]}, schema={"row": pl.UInt32, "turn": pl.UInt32})
    talks = (
        [("user", "Hi"), ("assistant", "Hm."), ("system", "Be kind."), ("assistant", "42.")],
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")],
    )
    as_json = [json.dumps([{"role": role, "content": text} for role, text in talk]) for talk in talks]
    texts = pl.DataFrame({"row": pl.Series([4, 7], dtype=pl.UInt32), "messages": as_json})
    plain = fakes.spec(tmp_path / "model")
    model = dataclasses.replace(plain, without_system=True)
    marked = card_warnings.marked(turns, model, lambda: texts, not_asked)
    assert marked["with_system_message"].to_list() == [False, True, True]
    assert card_warnings.conversations_warned_of(marked, model) == {"with_system_message": 2}
    assert card_warnings.sentences(model) == {
        "with_system_message": "with a system message, which fake's card asks to leave out"
    }
    assert "with_system_message" not in card_warnings.marked(turns, plain, lambda: texts, not_asked).columns
    assert card_warnings.depend_on(model) != card_warnings.depend_on(plain)
    rule = "not with_system_message"
    parse_rules([rule], attributes=model.columns, flags=card_warnings.why_unknown(model))
    with pytest.raises(UserMistake, match="No card of fake is known that asks for conversations without"):
        parse_rules([rule], attributes=plain.columns, flags=card_warnings.why_unknown(plain))


def test_marks_of_unseen_text_go_by_turn_and_cost_nothing_where_all_is_seen(tmp_path: Path) -> None:
    turns = pl.DataFrame({"row": [4, 4, 7], "turn": [0, 1, 0]}, schema={"row": pl.UInt32, "turn": pl.UInt32})
    talks = (
        [("user", "Hi"), ("assistant", "Hm."), ("tool", "42"), ("assistant", "42.")],
        [("user", "Hi"), ("assistant", "Hello.")],
    )
    as_json = [json.dumps([{"role": role, "content": text} for role, text in talk]) for talk in talks]
    texts = pl.DataFrame({"row": pl.Series([4, 7], dtype=pl.UInt32), "messages": as_json})

    def unseen(kinds: tuple[str, ...], messages: Callable[[], pl.DataFrame]) -> list[bool]:
        model = dataclasses.replace(fakes.spec(tmp_path / "model"), unseen=kinds)
        return card_warnings.marked(turns, model, messages, not_asked)["unseen_text"].to_list()

    def nobody_asks() -> pl.DataFrame:
        raise AssertionError("the messages are read for nothing")

    assert unseen(("tool messages",), lambda: texts) == [False, True, False]
    assert unseen((), nobody_asks) == [False, False, False]


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({}, "not unseen_text", "Which messages fake is shown is not known"),
        ({"unseen": ()}, "unseen_text > 1", "`unseen_text` is true or false: write it alone"),
        ({}, "beyond_trained_length", "How long conversations fake was trained on is not known"),
        ({}, "not other_language", "Which languages fake was made for is not known"),
        ({"languages": ("en",)}, "other_language >= 1", "`other_language` is true or false: write it alone"),
        ({"languages": ("en",)}, "1 <= other_language", "`other_language` is true or false: write it alone"),
        ({"languages": ("en",)}, "other_languages > 2", "Did you mean other_language?"),
    ],
)
def test_a_flag_that_is_not_known_or_is_compared_is_refused(
    tmp_path: Path, change: dict[str, Any], rule: str, words: str
) -> None:
    model = dataclasses.replace(fakes.spec(tmp_path / "model"), **change)
    with pytest.raises(UserMistake) as caught:
        parse_rules([rule], attributes=model.columns, flags=card_warnings.why_unknown(model))
    assert words in str(caught.value)
