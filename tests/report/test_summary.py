from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table

from assay import __version__
from assay.core.text import printable
from assay.export.files import Exported
from assay.report import spread
from assay.report.summary import (
    ScoredModel,
    escaped,
    run_manifest,
    summary_markdown,
    summary_table,
    summary_text,
)
from assay.rewards.named import NamedModel
from assay.rewards.spec import LocalSpec
from assay.score.scoring import ScoringWork
from assay.storage.manifests import Converted, Counts, Filtered, InputFile, Scored, Shortfall
from assay.storage.run_manifest import ExportedFile, PairsMade, Rows, RunManifest, Turns, Written

NOTE = "The starter model is here to try the pipeline, not to judge data."
MODEL = LocalSpec(
    name="starter",
    folder="/models/starter",
    family="linear",
    attributes=("helpfulness", "verbosity"),
    max_tokens=1024,
    over_length="quarantine",
    dtype="float32",
    opener="assay.rewards.local.model:open_model",
    fingerprint="f" * 32,
    notes=(NOTE,),
)
INPUT = InputFile("data/a.jsonl", "1" * 32, 100, "messages")
CONVERTED = Converted((INPUT,), (), Counts(12, {"one_message": 2}, {"not_json": 3}), 18, True, "c" * 32)
SCORED = Scored("f" * 32, ("helpfulness", "verbosity"), (), 40, 30, {"too_long": 4}, ())
FILTERED = Filtered(
    (), Counts(7, {"one_message": 2, "rule: helpfulness >= 2": 3}, {"not_json": 3, "too_long": 2})
)
FILES = {"labeled.jsonl": ExportedFile("a" * 32, 2048, 7), "quarantine.jsonl": ExportedFile("b" * 32, 10, 5)}
EXPORTED = Exported(FILES, {"steerlm": Written("labeled.jsonl", 7)})


def scored_by(model: LocalSpec = MODEL, **work: Any) -> ScoredModel:
    did = ScoringWork(**({"turns_scored": 25} | work))
    return ScoredModel(NamedModel(None, model), SCORED, did)


def manifest(**changes: Any) -> RunManifest:
    given: dict[str, Any] = {
        "options": {"output": "runs/out", "keep": ["helpfulness >= 2"]},
        "models": [scored_by()],
        "converted": CONVERTED,
        "scored": SCORED,
        "filtered": FILTERED,
        "exported": EXPORTED,
        "seconds": {"ingest": 0.12345, "score": 12.0},
    }
    return run_manifest(**given | changes)


def rendered(run: RunManifest, width: int = 80, color: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=color, highlight=False).print(summary_table(run))
    return out.getvalue()


def test_every_record_is_counted_once_and_by_reason() -> None:
    run = manifest()
    assert run.rows == Rows(17, 7, 5, 5)
    assert run.dropped == {"one_message": 2, "rule: helpfulness >= 2": 3}
    assert run.quarantined == {"not_json": 3, "too_long": 2}
    assert run.lines == 18


def test_the_manifest_says_how_the_model_was_read_and_what_it_told() -> None:
    named = replace(MODEL, family="first-token-logit", family_named=True, add_bos=True)
    told = manifest(models=[scored_by(named, remarks=("1 here, 2 elsewhere",))])
    assert told.model is not None
    assert told.model.family == "first-token-logit"
    assert (told.model.family_named, told.model.read_at, told.model.add_bos) == (*(True, None, True),)
    assert told.model.notes == (NOTE, "1 here, 2 elsewhere")
    assert "! 1 here, 2 elsewhere" in summary_text(told)


def test_turns_are_rated_now_rated_before_or_without_a_score() -> None:
    assert manifest().turns == Turns(25, 11, 4)


def test_a_cached_score_stage_rated_nothing_in_this_run() -> None:
    assert manifest(models=[scored_by()._replace(work=None)]).turns == Turns(0, 36, 4)


def test_reused_is_never_below_zero() -> None:
    assert manifest(models=[scored_by(turns_scored=100)]).turns.reused == 0


def test_a_manifest_survives_json_and_names_what_made_it() -> None:
    run = manifest()
    assert msgspec.convert(json.loads(json.dumps(run.as_written())), RunManifest) == run
    assert run.assay == __version__
    assert run.complete is True
    assert run.model is not None
    assert run.model.fingerprint == "f" * 32
    assert run.model.attributes == ("helpfulness", "verbosity")
    assert run.model.notes == (NOTE,)
    assert run.inputs == (InputFile("data/a.jsonl", "1" * 32, 100, "messages"),)
    assert run.files["labeled.jsonl"] == ExportedFile("a" * 32, 2048, 7)
    assert run.options["keep"] == ["helpfulness >= 2"]
    assert run.seconds == {"ingest": 0.123, "score": 12.0}
    assert {"python", "torch", "transformers", "polars"} <= run.versions.keys()


def test_a_run_that_stopped_after_convert_has_no_model_and_no_turns() -> None:
    run = manifest(scored=None, models=())
    assert run.rows == Rows(17, 7, 5, 5)
    assert run.model is None
    assert run.turns == Turns(0, 0, 0)
    assert NOTE not in rendered(run)
    assert "Turns" not in rendered(run)


@pytest.mark.parametrize("summary", [rendered, summary_text, summary_markdown])
def test_a_summary_says_what_happened(summary: Callable[[RunManifest], str]) -> None:
    text = summary(manifest()).replace("\\", "").replace("&gt;", ">")
    for said in (
        "read",
        "17",
        "18 lines of 1 file",
        "kept",
        "41.2%",
        "rule: helpfulness >= 2",
        "not_json",
        "scored",
        "25",
        "reused",
        "11",
        "failed",
        "too_long",
        "ingest 0.1, score 12.0",
        "runs/out",
        "labeled.jsonl",
        "rows, 2.0 kB",
        NOTE,
    ):
        assert said in text, said
    assert "cut short" not in text
    cut = " ".join(summary(manifest(converted=CONVERTED_CUT)).replace("\\", "").split())
    assert cut.count(f"{CUT}.") == 5
    assert str(CUT).endswith("in the middle; 1 record of it is in quarantine")
    assert "2 more inputs are cut short or damaged" in cut


CUT = Shortfall("data/a.jsonl.gz", "is cut short: the gzip data end in the middle", 1)
CONVERTED_CUT = Converted(CONVERTED.inputs, (), CONVERTED.counts, 18, False, "c" * 32, (CUT,) * 7)


def test_the_table_is_a_table_and_fits_80_columns() -> None:
    assert isinstance(summary_table(manifest()), Table)
    long = {"rule: " + "helpfulness >= 2 and " * 8 + "verbosity < 1": 5, "x" * 200: 1}
    run = manifest(
        filtered=Filtered((), Counts(1_000_000_000, long, {})), options={"output": "/long/" + "p" * 200}
    )
    for line in rendered(run).splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("summary", [rendered, summary_text, summary_markdown])
def test_what_a_file_leaves_out_is_named_below_it_by_reason(summary: Callable[[RunManifest], str]) -> None:
    left_out = {"late_system_message": 1, "tool_message": 2}
    steerlm = Written("labeled.jsonl", 4, left_out, {"weight": 3})
    exports = {"steerlm": steerlm, "messages": Written("messages.jsonl", 7)}
    files = {"labeled.jsonl": ExportedFile("a" * 32, 9, 4), "messages.jsonl": ExportedFile("b" * 32, 9, 7)}
    beside = {"info.json": ExportedFile("c" * 32, 9, None)}
    run = manifest(exported=Exported(files | beside, exports))
    assert run.exports == exports
    assert run.files["info.json"].rows is None
    text = " ".join(summary(run).replace("\\", "").replace("– ", "").replace("|", " ").split())
    assert (
        "labeled.jsonl 4 rows, 9 bytes left out: tool_message 2 left out: late_system_message 1 "
        "without a message's weight 3 messages.jsonl 7 rows, 9 bytes"
    ) in text
    assert "info.json 9 bytes" in text
    assert "No record could be used" not in text


def test_the_pairs_of_a_run_are_summed_up() -> None:
    pairs = PairsMade(40, 30, {"tie": 2, "one_answer": 8}, {"lengths_differ": 4}, {"5": 0.25, "50": 1.5}, 0.9)
    text = summary_text(manifest(exported=replace(EXPORTED, pairs=pairs)))
    assert re.search(r"made +30 +of the answers to 40 prompts\n +lengths_differ +4\n", text)
    assert "5% below 0.25, 50% below 1.5\n" in text
    assert re.search(r"chosen is the longer +90\.0% +of the pairs\n", text)
    assert re.search(r"prompts without a pair +10 +25\.0%\n +one_answer +8\n +tie +2\n", text)
    assert "Pairs" not in summary_text(manifest())


def test_a_run_whose_exports_hold_nothing_that_was_kept_says_so() -> None:
    nothing = {"steerlm": Written("labeled.jsonl", 0, {"tool_message": 7})}
    made = manifest(exported=Exported(FILES, nothing))
    assert str(made.unusable).startswith("No record could be used: no export can hold one that was kept; ")
    assert "steerlm: tool_message (7 of 7)" in str(made.unusable)
    assert f"! {made.unusable}" in summary_text(made)


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        (False, "2 turns hold reasoning, of which the model was shown what its chat template writes."),
        (True, "2 turns hold reasoning, which the model was not shown."),
    ],
)
def test_turns_that_hold_reasoning_are_counted_and_a_person_reads_what_became_of_it(
    hidden: bool, words: str
) -> None:
    run = manifest()
    options = {**run.options, "hide_reasoning": hidden}
    said = summary_text(replace(run, reasoning_turns=2, options=options))
    assert words in said
    assert ("--hide-reasoning rates the answers alone" in said) is not hidden
    assert "reasoning" not in summary_text(replace(run, reasoning_turns=0, options=options))


def test_most_frequent_reasons_come_first() -> None:
    text = summary_text(manifest())
    assert text.index("rule: helpfulness >= 2") < text.index("one_message")


def test_a_share_is_never_rounded_to_none_or_all() -> None:
    counts = Counts(99_999, {"x": 1}, {})
    text = summary_text(manifest(filtered=Filtered((), counts)))
    assert "> 99.9%" in text
    assert "< 0.1%" in text


def test_a_run_that_could_use_nothing_says_so() -> None:
    nothing = Counts(0, {}, {"unknown_schema": 8, "not_json": 1})
    made = manifest(filtered=Filtered((), nothing))
    assert str(made.unusable).startswith("No record could be used: unknown_schema (8 of 9).")
    assert f"! {made.unusable}" in summary_text(made)
    judged = Counts(0, {"rule: helpfulness >= 2": 1}, {"not_json": 8})
    made = manifest(filtered=Filtered((), judged))
    assert made.unusable is None
    assert "No record could be used" not in summary_text(made)


def test_records_are_counted_once_where_a_reason_both_drops_and_quarantines() -> None:
    made = manifest(filtered=Filtered((), Counts(0, {"no_turn": 3}, {"no_turn": 2})))
    assert made.unusable is not None


def test_rules_that_keep_nothing_are_warned_of() -> None:
    judged = Counts(0, {"rule: helpfulness >= 9": 7, "rule: toxicity < 1": 1}, {"not_json": 1})
    text = summary_text(manifest(filtered=Filtered((), judged)))
    assert "! The rules keep no record: helpfulness >= 9 drops 7 of 9." in text
    assert "The rules keep" not in summary_text(manifest())


def test_a_run_without_records_is_no_fault_and_says_so() -> None:
    made = manifest(filtered=Filtered((), Counts()))
    assert made.unusable is None
    assert "! No record could be used: the inputs hold none." in summary_text(made)


HOSTILE = (
    "<script>alert(1)</script> [click](javascript:x) ![i](http://e.example/i.png) www.e.example "
    "| **b** `c` \x1b[31m\n# h"
)
HOSTILE_EXPORT = Exported(
    {HOSTILE: ExportedFile("a" * 32, 1, 1)}, {HOSTILE: Written(HOSTILE, 1, {HOSTILE: 1})}
)


def hostile() -> RunManifest:
    return manifest(
        filtered=Filtered((), Counts(1, {f"rule: {HOSTILE}": 1}, {HOSTILE: 1})),
        options={"output": HOSTILE},
        exported=HOSTILE_EXPORT,
    )


def test_text_from_data_is_no_markup_in_markdown() -> None:
    text = summary_markdown(hostile())
    for markup in ("<script", "](", "![", "http:", "www.", "**", "`c`", "\x1b", "\n# h"):
        assert markup not in text, markup
    for line in text.splitlines():
        if line.startswith("| "):  # no cell was added
            assert line.replace("\\|", "").count("|") == 4


def test_the_summary_says_how_rules_were_read_and_what_is_repeated() -> None:
    text = summary_text(manifest(repeated=3))
    assert "rules look at the record; a turn's value is that of its last turn" in " ".join(text.split())
    assert "3 records say the same as an earlier one. --dedup exact keeps one of each." in text
    options = {"output": "runs/out", "keep": ["helpfulness >= 2"], "on_fail": "mask", "dedup": "exact"}
    text = summary_text(manifest(repeated=1, options=options))
    assert "rules that name a turn's value look at every turn" in " ".join(text.split())
    assert "the same as an earlier one" not in text
    assert not re.search(r"rules (look|that name)", summary_text(manifest(options={"output": "runs/out"})))


def test_several_models_are_named_and_counted_together() -> None:
    judge = scored_by()._replace(model=NamedModel("judge", MODEL))
    guard = scored_by(replace(MODEL, name="guard", fingerprint="e" * 32))
    made = manifest(models=[judge, guard._replace(model=NamedModel("safety", guard.model.spec))])
    assert made.model is None
    assert [(alias, one.name) for alias, one in made.models.items()] == [
        ("judge", "starter"),
        ("safety", "guard"),
    ]
    assert made.turns == Turns(50, 22, 8)
    assert made.failed == {"too_long": 8}
    text = summary_text(made)
    assert "by starter and guard" in text
    assert f"judge: {NOTE}" in " ".join(text.split())


def test_a_markdown_reader_finds_text_from_data_to_be_text_and_nothing_else() -> None:
    """S12, with a reader that obeys HTML, tables and strike-through, for every text a summary can hold."""
    run = manifest(
        filtered=Filtered((), Counts(1, {f"rule: {HOSTILE}": 1}, {HOSTILE: 1})),
        models=[
            scored_by(replace(MODEL, name=HOSTILE, notes=(HOSTILE,)))._replace(
                scored=replace(SCORED, failed={HOSTILE: 1})
            )
        ],
        options={"output": HOSTILE},
        exported=HOSTILE_EXPORT,
    )
    run = replace(run, warnings={HOSTILE: 1})
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    blocks = reader.parse(summary_markdown(run))
    parts = [part for block in blocks for part in block.children or ()]
    assert {part.type for part in parts} <= {"text", "text_special", "softbreak"}
    assert {block.tag for block in blocks} <= {
        "",
        "blockquote",
        "p",
        "h3",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    shown = "\n".join("".join(part.content for part in block.children or ()) for block in blocks)
    # Two remarks, a title, a rule, two reasons, the model, a file and what it lacks.
    assert shown.count(printable(HOSTILE)) == 9


def test_text_from_data_commands_no_terminal_and_is_no_rich_markup() -> None:
    run = manifest(filtered=Filtered((), Counts(1, {"[bold red]x[/] \x1b[2J\x07": 1}, {})))
    for text in (rendered(run), summary_text(run)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[bold red]x[/]" in text
    assert "\x1b[2J" not in rendered(run, color=True)


def unescaped(text: str) -> str:
    """What a CommonMark reader makes of text that is all escapes, entities and plain characters."""
    out, at = "", 0
    entities = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"'}
    while at < len(text):
        if text[at] == "\\":
            out += text[at + 1]
            at += 2
            continue
        for entity, character in entities.items():
            if text.startswith(entity, at):
                out += character
                at += len(entity)
                break
        else:
            assert text[at].isalnum() or text[at] == " " or ord(text[at]) > 127, text[at]
            out += text[at]
            at += 1
    return out


@settings(max_examples=300)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]) | st.sampled_from("é\U0001f642")))
def test_escaped_text_renders_as_itself_and_leaves_no_live_punctuation(text: str) -> None:
    assert unescaped(escaped(text)) == text


@pytest.mark.slow
def test_a_report_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, assay.report.summary, assay.export\n"
        "assert not {'torch', 'transformers', 'prefect'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_threshold_is_shown_with_what_it_keeps() -> None:
    # Six digits of this value are more than the value.
    for value in (1.0060307, 0.0012345678, -1.4533251, 3.0, 0.0, -0.5):
        held = pl.Series([value] * 9, dtype=pl.Float32)
        ((cut, share),) = spread._spread(held, is_label=False).kept_at.items()
        assert share == (held >= pl.Series([float(cut)], dtype=pl.Float32)[0]).mean() == 1.0
        assert float(cut) == pytest.approx(held[0], rel=1e-5)
