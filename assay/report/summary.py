"""What a person looks at: the run's manifest, and a summary of it for a terminal, a log or Prefect."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from assay.core.text import columns, counted, printable
from assay.core.versions import VERSION, installed
from assay.export.files import Exported
from assay.export.usable import all_ruled_out, nothing_usable
from assay.read.languages import DETECTOR
from assay.rewards.named import NamedModel
from assay.rewards.spec import ModelSpec
from assay.score import card_warnings
from assay.score.scoring import ScoringWork
from assay.storage.manifests import Converted, Filtered, Scored, Shortfall
from assay.storage.run_manifest import (
    ExportedFile,
    PairsMade,
    Rows,
    RunManifest,
    RunModel,
    Selected,
    Spread,
    Turns,
)

#: What can change a result, or how it is computed.
_PACKAGES = ("torch", "transformers", "tokenizers", "polars", "dask", "distributed", "prefect", *DETECTOR)
_SHORTFALLS_SHOWN = 5
_FIELDS_SHOWN = 10


class ScoredModel(NamedTuple):
    """One of the run's models, and what it gave."""

    model: NamedModel
    scored: Scored
    work: ScoringWork | None = None
    """What this run did for it; None or empty where its score stage was cached."""


def run_manifest(
    *,
    options: Mapping[str, Any],
    models: Sequence[ScoredModel],
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    exported: Exported,
    seconds: Mapping[str, float],
    output: str | None = None,
    spread: Mapping[str, Spread] = MappingProxyType({}),
    repeated: int = 0,
    notes: Sequence[str] = (),
) -> RunManifest:
    """The run's manifest. ``output`` is where the results are, where that is not what the options name.

    ``spread`` is how each attribute's scores are spread, ``repeated`` how many records say the same as an
    earlier one. ``notes`` are what a person should know besides those on selecting. ``models`` is empty where
    nothing was scored, and ``scored`` has the scores of all of them.
    """
    counts = filtered.counts
    about = {one.model.key: _model(one.model.spec, one.work.remarks if one.work else ()) for one in models}
    return RunManifest(
        assay=VERSION,
        versions=installed(*_PACKAGES),
        complete=converted.complete,
        shortfalls=converted.shortfalls,
        unusable=nothing_usable(counts, exported.exports) if counts.read else None,
        output=output if output is not None else options.get("output", ""),
        rows=Rows(
            read=counts.read,
            kept=counts.ok,
            dropped=sum(counts.dropped.values()),
            quarantined=sum(counts.quarantined.values()),
        ),
        dropped=dict(counts.dropped),
        selected=Selected(_reading(options), dict(filtered.turns), (*filtered.notes, *notes)),
        quarantined=dict(counts.quarantined),
        left_out=dict(converted.left_out),
        lines=converted.lines,
        turns=_turns(models),
        failed=_failed(models),
        repeated=repeated,
        reasoning_turns=converted.reasoning_turns,
        warnings=_warnings(models),
        spread=dict(spread),
        devices=tuple(
            replace(one, tokens_per_second=round(one.tokens_per_second, 1), busy=round(one.busy, 3))
            for rated in models
            for one in (rated.work.devices if rated.work else ())
        ),
        model=next(iter(about.values())) if len(about) == 1 else None,
        models=about,
        inputs=converted.inputs,
        files=dict(sorted(exported.files.items())),
        exports=dict(exported.exports),
        pairs=exported.pairs,
        options=dict(options),
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
    )


def _reading(options: Mapping[str, Any]) -> str:
    """What the rules are asked of; empty where there are none."""
    if not options.get("keep"):
        return ""
    if options.get("on_fail", "drop") == "drop":
        return "rules look at the record; a turn's value is that of its last turn"
    return "rules that name a turn's value look at every turn"


def _turns(models: Sequence[ScoredModel]) -> Turns:
    """What all models did together: a turn that two of them rated counts twice."""
    rated = sum(one.work.turns_scored for one in models if one.work)
    failed = sum(_failed(models).values())
    return Turns(rated, max(0, sum(one.scored.turns for one in models) - rated - failed), failed)


def _failed(models: Sequence[ScoredModel]) -> dict[str, int]:
    failed: Counter[str] = Counter()
    for one in models:
        failed.update(one.scored.failed)
    return dict(sorted(failed.items()))


def _warnings(models: Sequence[ScoredModel]) -> dict[str, int]:
    """What each model's card warns of, and of how many conversations it is true; those of none left out."""
    found = {}
    for one in models:
        sentences = card_warnings.sentences(one.model.spec)
        for name, count in one.scored.warnings.items():
            if count:
                found[sentences[name] if len(models) == 1 else f"{sentences[name]} ({one.model.key})"] = count
    return found


def _model(model: ModelSpec, remarks: Sequence[str]) -> RunModel:
    reading = model.reading
    return RunModel(
        name=model.name,
        fingerprint=model.fingerprint,
        family=reading.family,
        family_named=reading.family_named,
        read_at=reading.read_at,
        add_bos=reading.add_bos,
        attributes=tuple(model.attributes),
        weights=dict(model.factors),
        max_tokens=reading.max_tokens,
        over_length=reading.over_length,
        dtype=reading.dtype,
        notes=(*model.notes, *remarks),
    )


class _Line(NamedTuple):
    """A line of the summary: a name, a figure, and words about it."""

    name: str
    figure: str = ""
    about: str = ""
    depth: int = 0


class _Section(NamedTuple):
    title: str
    lines: list[_Line]


def _sections(manifest: RunManifest) -> Iterator[_Section]:
    """Yield what all three summaries say, text from data still as it came."""
    rows, turns = manifest.rows, manifest.turns
    yield _Section(
        "Records",
        [
            _Line("read", _count(rows.read), _inputs(manifest)),
            _Line("kept", _count(rows.kept), _share(rows.kept, rows.read)),
            _Line("dropped", _count(rows.dropped), _share(rows.dropped, rows.read)),
            *_reasons(manifest.dropped),
            *([_Line("how", "", reading, depth=1)] if (reading := manifest.selected.reading) else []),
            _Line("quarantined", _count(rows.quarantined), _share(rows.quarantined, rows.read)),
            *_reasons(manifest.quarantined),
        ],
    )
    if manifest.left_out:
        fields = sorted(manifest.left_out.items(), key=lambda item: (-item[1], item[0]))
        about = "in the input, and in no result file; of so many records"
        lines = [_Line(name, _count(count)) for name, count in fields[:_FIELDS_SHOWN]]
        if len(fields) > _FIELDS_SHOWN:
            lines.append(_Line(f"{len(fields) - _FIELDS_SHOWN:,} more, in manifest.json"))
        yield _Section("Fields left out", [lines[0]._replace(about=about), *lines[1:]])
    if manifest.selected.turns:
        yield _Section(
            "Turns of kept records",
            [_Line(name, _count(count)) for name, count in manifest.selected.turns.items()],
        )
    if manifest.models:
        raters = " and ".join(one.name for one in manifest.models.values())
        yield _Section(
            "Turns",
            [
                _Line("scored", _count(turns.scored), f"by {raters}"),
                _Line("reused", _count(turns.reused), "from the store, or repeated"),
                _Line("failed", _count(turns.failed)),
                *_reasons(manifest.failed),
            ],
        )
    if manifest.spread:
        yield _Section(
            "Scores of last turns",
            [line for name, spread in manifest.spread.items() for line in _spread(name, spread)],
        )
    if manifest.pairs is not None:
        yield _Section("Pairs", list(_pairs(manifest.pairs)))
    if manifest.seconds:
        seconds = manifest.seconds
        stages = ", ".join(f"{stage} {value:,.1f}" for stage, value in seconds.items())
        yield _Section("Time", [_Line("seconds", f"{sum(seconds.values()):,.1f}", stages)])
    if manifest.files:
        yield _Section(
            "Results",
            [
                *(line for name, file in _files(manifest).items() for line in _file(name, file, manifest)),
                *([_Line(manifest.report, "", "a page to look at")] if manifest.report else []),
            ],
        )


def _pairs(made: PairsMade) -> Iterator[_Line]:
    """Yield lines about the pairs that were made, and about what gave none."""
    yield _Line("made", _count(made.pairs), f"of the answers to {counted(made.prompts, 'prompts')}")
    yield from _reasons(made.passed_over)
    if made.margins:
        below = ", ".join(f"{percent}% below {margin:.3g}" for percent, margin in made.margins.items())
        yield _Line("margins", "", below)
    if made.chosen_longer is not None:
        yield _Line("chosen is the longer", f"{100 * made.chosen_longer:.1f}%", "of the pairs")
    without = sum(made.without.values())
    yield _Line("prompts without a pair", _count(without), _share(without, made.prompts))
    yield from _reasons(made.without)


def _remarks(manifest: RunManifest) -> list[str]:
    """Sentences that a person should not miss."""
    remarks = [
        note if manifest.model is not None else f"{alias}: {note}"
        for alias, model in manifest.models.items()
        for note in model.notes
    ]
    counts = manifest.counts
    remarks += filter(None, [nothing_usable(counts, manifest.exports), all_ruled_out(counts)])
    remarks += [
        f"{counted(count, 'conversations')} {'is' if count == 1 else 'are'} {what}."
        for what, count in manifest.warnings.items()
    ]
    if manifest.reasoning_turns and manifest.models:
        remarks.append(_on_reasoning(manifest))
    if manifest.repeated and not manifest.options.get("dedup"):
        again = f"{counted(manifest.repeated, 'records')} {'says' if manifest.repeated == 1 else 'say'}"
        remarks.append(f"{again} the same as an earlier one. --dedup exact keeps one of each.")
    remarks += [f"{note[:1].upper()}{note[1:]}." for note in manifest.selected.notes]
    remarks += [f"{line}." for line in lines_on_shortfalls(manifest.shortfalls)]
    remarks += manifest.observations
    return remarks


def _on_reasoning(manifest: RunManifest) -> str:
    count = manifest.reasoning_turns
    holding = f"{counted(count, 'turns')} {'holds' if count == 1 else 'hold'} reasoning"
    if manifest.options.get("hide_reasoning"):
        return f"{holding}, which the model was not shown."
    return (
        f"{holding}, of which the model was shown what its chat template writes. --hide-reasoning rates the "
        "answers alone."
    )


def lines_on_shortfalls(shortfalls: Sequence[Shortfall]) -> list[str]:
    """A line for each of the first inputs that are not complete, and one for the others."""
    lines = [str(one) for one in shortfalls[:_SHORTFALLS_SHOWN]]
    if more := len(shortfalls) - len(lines):
        lines.append(f"{more:,} more inputs are cut short or damaged; manifest.json lists them")
    return lines


def _spread(name: str, spread: Spread) -> Iterator[_Line]:
    """Yield a line of an attribute's quantiles, and one of what thresholds would keep."""
    quantiles = dict(spread.quantiles)
    median = quantiles.pop("50", 0.0)
    about = ", ".join(f"{share}%: {value:.3g}" for share, value in quantiles.items())
    yield _Line(name, f"{median:.3g}", f"in the middle; {about}")
    if spread.kept_at:
        kept = ", ".join(f"{cut}: {100 * share:.0f}%" for cut, share in spread.kept_at.items())
        yield _Line("at or above", "", kept, depth=1)
    if spread.outside_labels:
        yield _Line(
            "below 0 or above 4",
            _count(spread.outside_labels),
            "as the model gave it; a label clamps it, a rule sees it as it is",
            depth=1,
        )


def _reasons(counts: Mapping[str, int]) -> Iterator[_Line]:
    """Yield a line a reason, the most frequent first."""
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield _Line(reason, _count(count), depth=1)


def _files(manifest: RunManifest) -> Mapping[str, ExportedFile]:
    """The result files by name; numbered files of one side as one, by the first of their names."""
    found = dict(manifest.files)
    for written in manifest.exports.values():
        for first, *others in written.shards.values():
            parts = [found[first], *(found.pop(name) for name in others)]
            rows, size = sum(part.rows or 0 for part in parts), sum(part.size for part in parts)
            found[first] = ExportedFile(parts[0].digest, size, rows)
    return found


def _file(name: str, file: ExportedFile, manifest: RunManifest) -> Iterator[_Line]:
    """Yield a line for a result file, and one for each reason why it lacks kept records."""
    size = _bytes(file.size)
    if file.rows is None:
        yield _Line(name, "", size)
    else:
        parts = _count_of_parts(name, manifest)
        of_several = f" in {parts:,} files" if parts > 1 else ""
        yield _Line(name, _count(file.rows), f"row{'s' * (file.rows != 1)}, {size}{of_several}")
    for written in manifest.exports.values():
        if written.file == name:
            for line in _reasons(written.left_out):
                yield line._replace(name=f"left out: {line.name}")
            for line in _reasons(written.without):
                yield line._replace(name=f"without a message's {line.name}")


def _count_of_parts(first: str, manifest: RunManifest) -> int:
    """How many numbered files begin with the one of this name."""
    every = (files for one in manifest.exports.values() for files in one.shards.values())
    return next((len(files) for files in every if files[0] == first), 1)


def _inputs(manifest: RunManifest) -> str:
    files, lines = len(manifest.inputs), manifest.lines
    return f"from {_count(lines)} line{'s' * (lines != 1)} of {_count(files)} file{'s' * (files != 1)}"


def _count(number: int) -> str:
    return f"{number:,}"


def _share(part: int, whole: int) -> str:
    """``part`` in percent; never 0% or 100% where that is not exact."""
    if not whole or not part:
        return ""
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1%"
    if 99.9 < percent < 100:
        return "> 99.9%"
    return f"{percent:.1f}%"


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def summary_table(manifest: RunManifest) -> Table:
    """The summary for a terminal. Text from data is never markup, and cannot command the terminal."""
    rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column(overflow="fold", max_width=44)
    rows.add_column(justify="right", no_wrap=True)
    rows.add_column(overflow="fold")
    for number, section in enumerate(_sections(manifest)):
        if number:
            rows.add_row("")
        output = f"in {manifest.output}" if section.title == "Results" and manifest.output else ""
        rows.add_row(Text(section.title, style="bold"), "", Text(printable(output)))
        for line in section.lines:
            style = "dim" if line.depth else ""
            rows.add_row(
                Padding(Text(printable(line.name), style=style), (0, 0, 0, 2 * (line.depth + 1))),
                Text(line.figure, style=style),
                Text(printable(line.about), style="dim"),
            )
    remarks = [Text(f"! {printable(remark)}", style="yellow") for remark in _remarks(manifest)]
    frame = Table.grid()
    frame.add_row(Group(rows, *([Text(""), *remarks] if remarks else [])))
    return frame


def summary_text(manifest: RunManifest) -> str:
    """The summary as plain lines, for a log: nothing folded, nothing but text."""
    sections = list(_sections(manifest))
    names = [columns(_indented(line)) for section in sections for line in section.lines]
    name_width = min(max(names, default=0), 44)
    figure_width = max((len(line.figure) for section in sections for line in section.lines), default=0)
    written = []
    for section in sections:
        output = f" in {printable(manifest.output)}" if section.title == "Results" else ""
        written.append(f"{section.title}{output.rstrip() if manifest.output else ''}")
        for line in section.lines:
            name = _indented(line)
            space = " " * (name_width - columns(name))
            written.append(f"{name}{space}  {line.figure:>{figure_width}}  {printable(line.about)}".rstrip())
    written += [f"! {printable(remark)}" for remark in _remarks(manifest)]
    return "\n".join(written) + "\n"


def _indented(line: _Line) -> str:
    return "  " * (line.depth + 1) + printable(line.name)


def summary_markdown(manifest: RunManifest) -> str:
    """The summary as Markdown. Text from data is escaped: it can be neither markup nor a link."""
    written = [f"> {escaped(remark)}\n" for remark in _remarks(manifest)]
    for section in _sections(manifest):
        title = section.title
        if title == "Results" and manifest.output:
            title = f"Results in {escaped(manifest.output)}"
        written.append(f"### {title}\n\n| | | |\n|:--|--:|:--|")
        for line in section.lines:
            name = "– " * line.depth + escaped(line.name)
            written.append(f"| {name} | {escaped(line.figure)} | {escaped(line.about)} |")
        written.append("")
    return "\n".join(written)


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def escaped(text: str) -> str:
    """``text`` as Markdown that renders as it, and as nothing else, on one line.

    CommonMark takes a backslash before any ASCII punctuation for that character itself, which also
    keeps addresses from becoming links; what HTML obeys is written as an entity.
    """
    return _PUNCTUATION.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), printable(text))
