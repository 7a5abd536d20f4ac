"""One file that shows hostile texts as texts, asks nobody for anything, and stays small."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import run_made
from handmade import Record, Turn
from run_made import chats, in_pieces

from assay.export.folder import OutputFolder, is_page
from assay.report import build, page, sample
from assay.report.figures import TEMPLATES, address, standalone
from assay.report.page import CheckLine, checks_page
from assay.report.shown_text import visible
from assay.storage.run_manifest import PAGE_BEGINS, REPORT

HOSTILE = [
    "<script>document.title = 'canary'</script>",
    "</style></script><img src=x onerror=alert(1)>",
    "\u202egnirts desrever\u202c and \u2066isolated\u2069",
    "a\x00b\x07c\x1b[31mred\x9b",
    "[click](javascript:alert(1)) javascript:alert(1) https://example.org/x.png",
    "{{ 7 * 7 }} {% raw %} ${7*7} <!-- -->]]>",
    '"><svg onload=alert(1)>',
    "w" * 1_000_000,
    "\ud7ff\uffff\U000e0041 tag",
]


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.inside[-1] if self.inside else "", []).append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> run_made.Made:
    folder = tmp_path_factory.mktemp("hostile")
    records = [
        Record(n, (("user", text), ("assistant", text)), (Turn((float(n), 1.0)),), rest=None)
        for n, text in enumerate(HOSTILE, start=1)
    ]
    name = "<b>a\u202e.jsonl"
    (folder / name).write_text("<script>alert('original')</script>\n")
    length = len("<script>alert('original')</script>")
    bad = Record(20, None, outcome="quarantined", reason="not_json: <script>", length=length)
    return run_made.run(folder, {name: [[*records, bad]]}, ["helpfulness >= 3"])


def test_hostile_texts_are_shown_as_texts(hostile: run_made.Made) -> None:
    assert hostile.said == []
    found = Elements(hostile.page)
    tags = {tag for tag, _ in found.starts}
    assert not tags & {"img", "iframe", "object", "embed", "link", "base", "form"}
    assert sum(tag == "script" for tag, _ in found.starts) == 1
    assert sum(tag == "style" for tag, _ in found.starts) == 1
    for tag, attributes in found.starts:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (
            tag,
            attributes,
        )
        for name in ("href", "src", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, value)
    shown = "\n".join(found.texts["div"])
    for text in HOSTILE[:2] + HOSTILE[4:7]:
        assert text in shown
    originals = "\n".join(found.texts["div"])
    assert "<script>alert('original')</script>" in originals


def test_what_cannot_be_seen_is_written_out(hostile: run_made.Made) -> None:
    text = hostile.page
    for character in "\x00\x07\x1b\x9b\u202e\u202c\u2066\u2069\U000e0041":
        assert character not in text
    for number in ("U+202E", "U+0000", "U+001B", "U+2066", "U+E0041"):
        assert f"⟨{number}⟩" in text
    assert visible("👩\u200d💻 نمی\u200cدانم\r\nx\ttab") == "👩\u200d💻 نمی\u200cدانم\nx\ttab"
    assert visible("a\ud800b\u00a0c\u2028") == "a⟨U+D800⟩b c⟨U+2028⟩"


def test_a_long_word_is_cut_and_says_by_how_much(hostile: run_made.Made) -> None:
    assert len(hostile.reported.page) < 700_000
    cut = re.search(r"([\d,]+) more characters are in", hostile.page)
    assert cut is not None
    assert int(cut[1].replace(",", "")) > 990_000


def test_the_policy_allows_our_style_and_our_script_alone(hostile: run_made.Made) -> None:
    text = hostile.page
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    policy = policy.replace("&#39;", "'")
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.keys() == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{kind}-src"] == f"'sha256-{digest}'"
    assert "http://www.w3.org/2000/svg" in text
    assert not re.findall(r"@import|url\((?!#)", text)


def test_the_page_is_known_by_its_beginning(hostile: run_made.Made, tmp_path: Path) -> None:
    assert hostile.reported.page.startswith(PAGE_BEGINS)
    assert is_page(hostile.folder / REPORT)
    (tmp_path / REPORT).write_text("<!doctype html><html lang=en><body>mine")
    assert not is_page(tmp_path / REPORT)
    assert not is_page(tmp_path / "nothing.html")


def test_every_picture_is_whole_named_and_fetches_nothing(hostile: run_made.Made) -> None:
    pictures = hostile.reported.pictures
    assert {"flow", "scores helpfulness", "scores verbosity", "lengths"} <= pictures.keys()
    for name, picture in pictures.items():
        tree = ElementTree.fromstring(standalone(picture))
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "image", "foreignObject", "a", "use"}, name
        (title,) = [one for one in tree if one.tag.endswith("title")][:1]
        assert title.text
        assert tree.get("aria-labelledby") == title.get("id")
        assert tree.get("role") == "img"
        assert base64.b64decode(address(picture).partition("base64,")[2]).startswith(b"<svg ")


def test_the_same_run_has_the_same_page(tmp_path: Path) -> None:
    files = {"a.jsonl": in_pieces(chats(60))}
    first = run_made.run(tmp_path, files, ["helpfulness >= 2"])
    (tmp_path / "again").mkdir()
    again = run_made.run(tmp_path / "again", files, ["helpfulness >= 2"])
    assert again.page == first.page


def test_a_run_with_nothing_kept_has_a_page_that_says_why(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(chats(50))}, ["helpfulness >= 9"])
    assert made.said == []
    assert "0 of 50 records kept" in made.page
    assert made.reported.warnings[0] == (
        "Nothing is kept. The most frequent reason is rule: helpfulness >= 9: 50 of 50 records."
    )
    assert "Dropped, at random" in made.page
    assert "Kept, at random" not in made.page


def test_a_run_whose_every_record_is_quarantined_has_a_page(tmp_path: Path) -> None:
    bad = [Record(n, None, outcome="quarantined", reason="not_json: here") for n in range(1, 4)]
    made = run_made.run(tmp_path, {"a.jsonl": [bad]})
    assert made.said == []
    assert "0 of 3 records kept" in made.page
    assert made.page.count("<article>") == 1


def test_scores_that_are_all_alike_and_single_records_have_a_page(tmp_path: Path) -> None:
    alike = [Record(n, (("user", "q"), ("assistant", f"a{n}")), (Turn((2.0, 0.0)),)) for n in range(1, 4)]
    for name, records in (("alike", alike), ("one", alike[:1])):
        made = run_made.run(tmp_path, {"a.jsonl": [records]}, ["helpfulness >= 2"], name=name)
        assert made.said == []
        assert f"{len(records)} of {len(records)} records kept" in made.page
        assert "NaN" not in made.page
        assert "inf" not in "".join(re.findall(r'(?:d|x|y|width|height)="[^"]*"', made.page))


@pytest.mark.slow
def test_at_most_200_conversations_are_shown_and_the_page_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        Record(n, (("user", "<" * 9000), ("assistant", "&" * 9000)) * 20, (Turn((n / 100, 1.0)),) * 20)
        for n in range(1, 301)
    ]
    rules = ["helpfulness >= 1", "helpfulness <= 2.5", "verbosity < 2", "helpfulness > 0.5"]
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(records)}, rules)
    assert made.said == []
    assert made.page.count("<article>") <= sample.MOST
    assert len(made.reported.page) < 3_000_000
    monkeypatch.setattr(sample, "MOST", 12)
    (tmp_path / "few").mkdir()
    few = run_made.run(tmp_path / "few", {"a.jsonl": in_pieces(records[:60])}, rules)
    assert few.page.count("<article>") == 12


@pytest.mark.slow
def test_each_conversation_has_its_place_its_outcome_and_its_scores(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(chats(60))}, ["helpfulness >= 2"])
    articles = re.findall(r"<article>.*?</article>", made.page, re.DOTALL)
    decisions = {
        (row[1], row[2]): row[3:]
        for row in made.scores().select("file", "line", "part", "outcome", "why").iter_rows()
    }
    scores = {
        (line, turn): score
        for line, turn, score in made.scores().select("line", "turn", "helpfulness").iter_rows()
    }
    assert len(articles) > 40
    for article in articles:
        (line,) = re.findall(r"<code>a\.jsonl:(\d+)", article)
        outcome, _ = decisions[int(line), 0]
        assert f'class="tag {outcome}"' in article
        turns = re.findall(r"turn (\d+) · helpfulness (-?[\d.]+)", article)
        assert turns
        for turn, shown in turns:
            assert float(shown) == pytest.approx(scores[int(line), int(turn)], abs=6e-4)


def test_records_nearest_to_a_cut_are_on_both_sides_of_it(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(chats(150))}, ["helpfulness >= 2"])
    (kind,) = re.findall(r'<details class="kind" id="kind-cut-1".*?</details>\n', made.page, re.DOTALL)
    shown = [float(one) for one in re.findall(r"<b>helpfulness ([-\d.]+)</b>", kind)]
    judged = made.judged()["helpfulness"].sort()
    above = judged.filter(judged >= 2).head(5).sort(descending=True)
    below = judged.filter(judged < 2).tail(5).sort(descending=True)
    assert shown == pytest.approx([*above, *below], abs=1e-3)


FAULTS = [OSError("No space left"), KeyError("x"), ZeroDivisionError("division by zero"), MemoryError()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_the_page_costs_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fails(*arguments: object) -> None:
        raise fault

    monkeypatch.setattr(build, "aggregated", fails)
    made = run_made.run(tmp_path, {"a.jsonl": [chats(5)]})
    (line,) = made.said
    assert line.startswith(f"warning: report.html could not be made ({type(fault).__name__}")
    assert "The results are whole" in line
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "decisions.parquet",
        "manifest.json",
        "messages.jsonl",
        "quarantine.jsonl",
        "scores.parquet",
    ]


def test_a_page_of_an_earlier_run_does_not_stay_without_one_of_this(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": [chats(5)]})
    folder = OutputFolder(made.folder)
    folder.check()
    with folder.held():
        folder.put_page(None, made.reported.page + b"<!-- newer -->")
        assert (made.folder / REPORT).read_bytes().endswith(b"<!-- newer -->")
        folder.put_page(None, b"")
        assert not (made.folder / REPORT).exists()
        folder.refresh(replace(made.manifest, report=None))
    assert folder.holds(made.manifest.files)


def test_a_report_of_another_program_is_never_replaced(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": [chats(5)]})
    theirs = made.folder / REPORT
    theirs.write_text("<!doctype html>mine")
    folder = OutputFolder(made.folder)
    with pytest.raises(Exception, match="that no run wrote"):
        folder.check()
    with folder.held(), pytest.raises(Exception, match="is no page that Assay made"):
        folder.put_page(None, made.reported.page)
    assert theirs.read_text() == "<!doctype html>mine"


def test_what_a_killed_run_left_of_a_page_is_removed(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": [chats(5)]})
    left = made.folder / f".{REPORT}.host-1.abc.tmp"
    left.write_text("half")
    folder = OutputFolder(made.folder)
    folder.check()
    with folder.held():
        folder.repair()
    assert not left.exists()


def test_the_page_of_checks_names_what_failed() -> None:
    lines = [CheckLine("golden <rows>", "0.5", "1e-5", "FAIL"), CheckLine("batches", "0", "1e-5", "pass")]
    text = checks_page("judge", lines, "failed: golden <rows>", "assay verify --model judge").decode()
    found = Elements(text)
    assert text.encode().startswith(PAGE_BEGINS)
    assert "judge: 1 of 2 checks failed" in text
    assert "golden <rows>" in found.texts["td"]
    assert "Do not use its scores yet" in text


def test_the_slider_has_what_the_script_reads() -> None:
    script = (TEMPLATES / "script.js").read_text()
    for name in re.findall(r"about\.(\w+)", script):
        assert f'"{name}": ' in Path(page.__file__).read_text(), name


def test_shortened_texts_are_as_small_as_asked() -> None:
    for text in ("plain " * 100, "<&>" * 200, "\u202e" * 300, "語" * 300):
        for size in (30, 300, 5000):
            shown, cut = sample.shortened(text, size)
            assert len(json.dumps(shown)) > 0
            assert len(html.escape(shown).encode()) <= size
            assert cut == 0 or len(text) > cut > 0
