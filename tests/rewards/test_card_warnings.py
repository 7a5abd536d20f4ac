"""What a model's card does not vouch for is counted and said; the scores stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fakes
import handmade
import pytest
import tiny
from handmade import Record

from assay import scoring
from assay.cluster import ClusterOptions
from assay.home import Home
from assay.rewards.languages import in_other_script
from assay.rewards.local import LocalRewardModel
from assay.rewards.protocol import Request
from assay.schema import Message

ENGLISH = "The quick brown fox jumps over the lazy dog."
CHINESE = "请用一句话介绍北京这座城市的历史和文化以及它的主要景点和特色美食。"
RUSSIAN = "Расскажи мне, пожалуйста, о самых длинных реках мира."
JAPANESE = "東京の歴史について、簡単に説明していただけますか。お願いします。"


@pytest.mark.parametrize(
    ("text", "languages", "other"),
    [
        (ENGLISH, ("en",), False),
        (CHINESE, ("en",), True),
        (RUSSIAN, ("en", "zh"), True),
        (CHINESE, ("en", "zh"), False),
        (JAPANESE, ("ja",), False),
        (JAPANESE, ("zh",), True),
        (ENGLISH, ("zh",), True),
        ("C'est la vie, n'est-ce pas ? Voilà un très long texte.", ("en",), False),
        (f"{ENGLISH} 北京", ("en",), False),
        ("北京", ("en",), False),
        ("1 + 1 = 2; 🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂", ("en",), False),
        (CHINESE, (), False),
        (CHINESE, ("en", "tlh"), False),
    ],
)
def test_a_script_is_told_and_a_language_is_not(text: str, languages: tuple[str, ...], other: bool) -> None:
    assert in_other_script((Message("user", text), Message("assistant", "")), languages) is other


def test_conversations_beyond_the_trained_length_are_scored_and_counted(tmp_path: Path) -> None:
    spec = dataclasses.replace(tiny.spec(tiny.reward_model(tmp_path / "model")), trained_tokens=40)
    model = LocalRewardModel(spec)
    short = Request((Message("user", "Hi"), Message("assistant", "Hello")), (0,))
    long = Request((Message("user", "Hi"), Message("assistant", "so " * 60)), (0,))
    outcomes = model.score([short, long])
    assert all(outcome.values is not None for (outcome,) in outcomes)
    assert model.beyond_trained == 1


def test_a_run_says_what_the_card_warns_of(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard:
        def begin(self, stage: str, total: int | None, unit: str) -> None: ...

        def advance(self, count: int = 1, **details: object) -> None: ...

        def say(self, line: str) -> None:
            said.append(line)

    texts = [ENGLISH, CHINESE, RUSSIAN]
    records = [Record(n + 1, (("user", text), ("assistant", text))) for n, text in enumerate(texts)]
    home = Home(tmp_path / "home")
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    model = dataclasses.replace(fakes.spec(tmp_path / "model"), languages=("en",))
    _, work = scoring.score(converted, model, home=home, cluster=ClusterOptions(workers=1), progress=Heard())
    told = "in a script of none of its languages (en), as fake's card has it"
    assert work.warnings == {told: 2}
    assert f"warning: {told}: 2 of the conversations scored by this run" in said
    _, again = scoring.score(converted, model, home=home, cluster=ClusterOptions(workers=1))
    assert again.warnings == {}
