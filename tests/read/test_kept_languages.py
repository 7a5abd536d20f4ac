from __future__ import annotations

from pathlib import Path

import handmade
import polars as pl
import pytest
from handmade import Record

from assay.core.schema import Conversation
from assay.core.versions import installed
from assay.read import kept_languages
from assay.read.kept_languages import languages_of, languages_of_answers
from assay.read.languages import DETECTOR, language_of, language_of_conversation
from assay.storage.home import Home
from assay.storage.manifests import ConvertedPiece

ENGLISH = (("user", "Which way is it to the mill from here?"), ("assistant", "Turn left at the old bridge."))
GERMAN = (("user", "Wie komme ich von hier zur Mühle?"), ("assistant", "An der alten Brücke nach links."))
SHORT = (("user", "Hi"), ("assistant", "Yo"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the detector was asked of, by the first message."""
    asked: list[str] = []

    def noted(conversation: Conversation) -> str | None:
        asked.append(conversation[0].content)
        return language_of_conversation(conversation)

    monkeypatch.setattr(kept_languages, "language_of_conversation", noted)
    return asked


def piece_of(home: Home) -> ConvertedPiece:
    records = [
        Record(1, ENGLISH),
        Record(2, None, outcome="quarantined", reason="bad_json"),
        Record(3, GERMAN),
        Record(4, SHORT),
        Record(5, ENGLISH),
    ]
    return handmade.make(home, {"a.jsonl": [records]}).converted.pieces[0]


def test_languages_are_found_once_a_conversation_and_kept(home: Home, looked_at: list[str]) -> None:
    piece = piece_of(home)
    expected = pl.DataFrame(
        {"row": [0, 2, 3, 4], "language": ["en", "de", None, "en"]}, schema_overrides={"row": pl.UInt32}
    )
    for _ in range(2):
        assert languages_of(piece, home).equals(expected)
    assert looked_at == [ENGLISH[0][1], GERMAN[0][1], SHORT[0][1]]


@pytest.mark.parametrize("damage", [b"", b"[]", b"en", None])
def test_languages_are_found_again_where_their_file_is_damaged(
    home: Home, looked_at: list[str], damage: bytes | None
) -> None:
    piece = piece_of(home)
    expected = languages_of(piece, home)
    (kept,) = (home.artifacts / "languages").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole.replace(b"en de", b"de en") if damage is None else damage)
    assert languages_of(piece, home).equals(expected)
    assert (len(looked_at), kept.read_bytes()) == (6, whole)


def test_another_version_of_the_detector_finds_them_anew(
    home: Home, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = piece_of(home)
    languages_of(piece, home)
    for count, package in enumerate(DETECTOR, 2):
        versions = {**installed(*DETECTOR), package: "99.0"}
        monkeypatch.setattr(kept_languages, "installed", lambda *_, versions=versions: versions)
        languages_of(piece, home)
        assert len(looked_at) == 3 * count


def test_the_language_of_an_answer_is_found_once_a_text_and_kept(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(text: str) -> str | None:
        asked.append(text)
        return language_of(text)

    monkeypatch.setattr(kept_languages, "language_of", noted)
    grown = (*ENGLISH, *GERMAN)
    made = handmade.make(home, {"a.jsonl": [[Record(1, grown), Record(2, SHORT), Record(3, GERMAN)]]})
    for _ in range(2):
        found = languages_of_answers(made.converted.pieces[0], home)
        assert found.rows() == [(0, 0, "en"), (0, 1, "de"), (1, 0, None), (2, 0, "de")]
    assert asked == [ENGLISH[1][1], GERMAN[1][1], SHORT[1][1]]
    assert languages_of(made.converted.pieces[0], home).height == 3, "a file of their own"
