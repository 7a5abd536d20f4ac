"""Assay in a notebook, or in other people's code: read, rate, select, export, without a Prefect server.

>>> import assay
>>> chats = assay.read("samples/support.messages.jsonl")
>>> rated = chats.rate("starter", workers=1)
>>> best = rated.select("helpfulness >= 2")
>>> best.counts.ok < rated.counts.ok
True

``best.export("out", ["trl-sft"])`` writes files. The stages, the store of scores and the files are those of
the command line: what one has rated, the other does not rate again. ``query_reward_model`` gives the scores
of one conversation, in the manner of NeMo Curator's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from assay.config.options import RunOptions, options_from
from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.calls import Json
from assay.core.digests import digest_of_content
from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import ROLES, Conversation, is_turn
from assay.export import (
    EXPORT,
    AboutModel,
    AboutRun,
    ToExport,
    check_exports,
    check_split,
    default_exports,
    wanted,
)
from assay.export.folder import OutputFolder
from assay.export.foreseen import notes_on_sides, warnings_of
from assay.export.results import scores_of
from assay.read.convert import CONVERT, ToConvert
from assay.read.formats.names import KNOWN_NAMES
from assay.read.formats.reading import Row, Unreadable, chat_in
from assay.read.formats.tools import NoCalls, tools_in
from assay.read.inventory import INGEST, Inputs
from assay.report.bars import Bars
from assay.report.summary import ScoredModel, run_manifest
from assay.rewards.catalog import CATALOG
from assay.rewards.find import find_model
from assay.rewards.named import NamedModel
from assay.rewards.remote.service import in_a_loop
from assay.rewards.spec import ModelSpec
from assay.score.scoring import SCORE, ToScore
from assay.score.ways import way_of
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import Rules, parse_rules, rules_in
from assay.select.selection import Selection, chosen_order, parsed_group
from assay.select.vocabulary import tokenizers_of, vocabulary_of
from assay.storage.home import written_whole
from assay.storage.manifests import Converted, Counts, Filtered, Scored
from assay.storage.run_manifest import RunManifest
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions

#: What ``read`` takes besides paths: rows, such as dicts, a ``datasets.Dataset`` or a polars frame.
GivenRows = Iterable[Mapping[str, object]] | pl.DataFrame

_GIVEN = "given"


def read(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | GivenRows, *, format: str = "auto"
) -> Chats:
    """The conversations in files, folders or globs, or in rows: dicts, a ``datasets.Dataset``, a frame.

    ``UserMistake`` where there is nothing of that name. What cannot be read is counted in ``counts``.
    """
    context = RunContext(Settings.read().opened_home(), Bars())
    names = _names(source)
    if names is None:
        assert not isinstance(source, str | os.PathLike)
        names = (_written(source, context),)
    inventory = INGEST.run(Inputs(names, format), context)
    return Chats(CONVERT.run(ToConvert(inventory), context), names, format)


def _names(source: object) -> tuple[str, ...] | None:
    """The paths, where the source is one or several; None where it is rows."""
    if isinstance(source, str | os.PathLike):
        return (os.fspath(source),)
    if isinstance(source, Sequence) and source and all(isinstance(one, str | os.PathLike) for one in source):
        return tuple(os.fspath(one) for one in source)
    return None


def _written(rows: Iterable[object], context: RunContext) -> str:
    """A file of the rows below ``ASSAY_HOME``, named by its digest."""
    if isinstance(rows, pl.DataFrame):
        rows = rows.iter_rows(named=True)
    try:
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    except (TypeError, msgspec.MsgspecError) as error:
        raise UserMistake(
            f"read: a row is not JSON: {error}. Give dicts, as json.loads makes them"
        ) from error
    path = context.home.copies / _GIVEN / f"{digest_of_content(lines)}.jsonl"
    if not path.exists():
        with written_whole(path) as temporary:
            temporary.write_bytes(lines)
    return str(path)


@dataclass(frozen=True, slots=True)
class Chats:
    """Conversations that were read."""

    converted: Converted
    inputs: tuple[str, ...]
    """What ``read`` was given, or the file that its rows were written to."""
    format: str = "auto"

    @property
    def counts(self) -> Counts:
        """How many records could be read, and why others could not."""
        return self.converted.counts

    def rate(
        self,
        model: str,
        *,
        workers: int | None = None,
        revision: str | None = None,
        weights: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
    ) -> Rated:
        """The conversations with the scores of every turn; only what was never rated is rated.

        ``model`` and the others are what the command line's options of these names take. ``UserMistake``
        where there is no such model, ``ModelFault`` where it gives no scores.
        """
        options = options_from(
            RunOptions,
            typed={
                "input": list(self.inputs),
                "output": "-",
                "format": self.format,
                "model": model,
                "workers": workers,
                "revision": revision,
                "max_tokens": max_tokens,
                "weights": [f"{name}={factor!r}" for name, factor in (weights or {}).items()],
            },
        )
        settings = Settings.read()
        context = RunContext(settings.opened_home(), Bars())
        spec = find_model(
            model,
            models_of(settings),
            options.chosen_models()[0].options,
            digest_cache=context.home.model_digests,
        )
        scored = SCORE.run(ToScore(self.converted, spec, ClusterOptions(workers=workers)), context)
        return Rated(self.converted, scored, spec, options, _decided(self.converted, scored, (), context))

    async def rate_async(self, model: str, **options: int | str | None) -> Rated:
        """The same for use inside an event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self.rate, model, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Rated:
    """Conversations with scores, and what of them is kept."""

    converted: Converted
    scored: Scored
    model: ModelSpec
    options: RunOptions
    filtered: Filtered
    rules: tuple[str, ...] = ()

    @property
    def counts(self) -> Counts:
        """How many records are kept (``ok``), dropped by which rule, quarantined for which reason."""
        return self.filtered.counts

    def select(self, *rules: str, allow_cross_prompt: bool = False) -> Rated:
        """What of this also satisfies all of the ``rules``, which are those of ``--keep``.

        ``UserMistake`` for a rule that cannot be read, or that compares rewards across prompts unasked.
        """
        all_rules = (*self.rules, *rules)
        context = RunContext(Settings.read().opened_home())
        filtered = self._decided(self._parsed(all_rules, allow_cross_prompt=allow_cross_prompt), context)
        return Rated(self.converted, self.scored, self.model, self.options, filtered, all_rules)

    @property
    def _models(self) -> tuple[NamedModel, ...]:
        return (NamedModel(None, self.model),)

    def _parsed(self, rules: Sequence[str], *, allow_cross_prompt: bool) -> Rules:
        vocabulary = vocabulary_of(self._models)
        vocabulary = replace(vocabulary, order=chosen_order(vocabulary, None))
        return rules_in(rules, vocabulary, allow_cross_prompt=allow_cross_prompt)

    def _decided(self, rules: Rules, context: RunContext) -> Filtered:
        selection = Selection(tokenizers=tokenizers_of(self._models))
        return DECIDE.run(ToDecide(self.converted, self.scored, rules, selection), context)

    def scores(self) -> pl.DataFrame:
        """A row a turn of what is kept: file, line, part, turn, and a Float32 column an attribute."""
        return scores_of(self.converted, self.scored, self.filtered, Settings.read().opened_home())

    def export(
        self, folder: str | os.PathLike[str], exports: Sequence[str] = (), **choices: object
    ) -> RunManifest:
        """Write the files of these exports, or of the defaults, as a run does; the manifest of the folder.

        ``choices`` are the command line's options on files: ``pairs``, ``min_margin``, ``max_length_ratio``,
        ``pairs_per_prompt``, ``desirable``, ``split``, ``seed``, and for the sides of a split ``group``. The
        folder is replaced as a whole.
        ``OutputRefused`` where it holds what no run wrote, ``UserMistake`` where an export makes no sense of
        these conversations.
        """
        output = OutputFolder(os.fspath(folder))
        names = tuple(exports) or default_exports(self.model.columns)
        check_exports(names, self.model.columns)
        asked = {"output": os.fspath(folder), "export": list(names), "keep": list(self.rules), **choices}
        options = options_from(RunOptions, typed={**self.options.model_dump(), **asked})
        parsed_group(options.group)
        split, shard_bytes = options.split_choice(), options.shard_bytes()
        check_split(names, split)
        context = RunContext(Settings.read().opened_home(), Bars())
        rules = self._parsed(options.desirable, allow_cross_prompt=options.allow_cross_prompt)
        to_write = wanted(names, None, options.pair_choice(), split, has_rule=bool(rules.rules))
        for line in warnings_of(to_write, self.converted, context.home):
            context.say(f"warning: {line}")
        notes = notes_on_sides(to_write.split, self.converted, context.home)
        for note in notes:
            context.say(f"note: {note}")
        license = CATALOG[self.model.name].license if self.model.name in CATALOG else None
        revision = options.chosen_models()[0].options.revision
        model = AboutModel(None, self.model.name, self.model.fingerprint, revision, license)
        about = AboutRun((model,), self.rules, finds_languages=bool(self.model.languages))
        desirable = self._decided(rules, context) if rules.rules else None
        output.check()
        with output.held():
            output.repair()
            staging = output.staging()
            given = ToExport(
                self.converted,
                self.scored,
                self.filtered,
                names,
                output,
                staging,
                pairs=options.pair_choice(),
                split=split,
                about=about,
                desirable=desirable,
                shard_bytes=shard_bytes,
            )
            manifest = run_manifest(
                options=options.model_dump(mode="json"),
                models=[ScoredModel(one, self.scored) for one in self._models],
                converted=self.converted,
                scored=self.scored,
                filtered=self.filtered,
                exported=EXPORT.run(given, context),
                seconds={},
                notes=notes,
            )
            output.publish(staging, manifest)
        return manifest


def _decided(converted: Converted, scored: Scored, rules: Sequence[str], context: RunContext) -> Filtered:
    return DECIDE.run(ToDecide(converted, scored, parse_rules(rules, attributes=scored.attributes)), context)


def query_reward_model(
    *,
    messages: Iterable[Mapping[str, Json]],
    model: str,
    tools: Sequence[Mapping[str, Json]] | None = None,
) -> dict[str, float]:
    """The scores of the last message, which is the assistant's, by attribute.

    ``model`` is what ``--model`` may be: an endpoint of the operator's list, a model of the catalog, a
    folder. A local model is loaded once a process. Messages may hold ``tool_calls``, ``tool_call_id``,
    ``name`` and ``reasoning_content``; ``tools`` are those that the assistant could call. ``UserMistake`` for
    messages that cannot be rated, ``ModelFault`` with the reason where the model gives no score,
    ``Resumable`` where a service stays away.

    >>> from assay import query_reward_model
    >>> messages = [
    ...     {"role": "user", "content": "What is the capital of France?"},
    ...     {"role": "assistant", "content": "Paris, on the Seine."},
    ... ]
    >>> scores = query_reward_model(messages=messages, model="starter")
    >>> {name: round(score, 1) for name, score in scores.items()}
    {'quality': 0.8, 'toxicity': -0.3, 'humor': 0.2, 'creativity': -0.4, 'helpfulness': 1.0}
    """
    return in_a_loop(query_reward_model_async(messages=messages, model=model, tools=tools))


async def query_reward_model_async(
    *,
    messages: Iterable[Mapping[str, Json]],
    model: str,
    tools: Sequence[Mapping[str, Json]] | None = None,
) -> dict[str, float]:
    """The same for use inside an event loop."""
    conversation = _conversation(messages)
    callable_tools = _tools(tools)
    settings = Settings.read()
    spec = find_model(model, models_of(settings))
    outcome = await way_of(spec).rated(conversation, callable_tools)
    if outcome.values is None:
        raise ModelFault(f"model {model}: no score: {outcome.reason}")
    return dict(zip(spec.attributes, outcome.values, strict=True))


def _conversation(messages: Iterable[Mapping[str, Json]]) -> Conversation:
    listed = [dict(message) for message in messages]
    for number, message in enumerate(listed):
        says = isinstance(message.get("content"), str) or message.get("tool_calls")
        if message.get("role") not in ROLES or not says:
            raise UserMistake(
                f"messages[{number}]: a role ({', '.join(ROLES)}) and a content that is text are needed"
            )
    row: Row = {"messages": msgspec.Raw(msgspec.json.encode(listed))}
    try:
        found = chat_in(row, "messages", KNOWN_NAMES)
    except Unreadable as error:
        raise UserMistake(f"messages: {error}") from error
    if not found or not is_turn(found[-1]):
        raise UserMistake("messages: the last one is what is rated, so it has to be the assistant's")
    return tuple(found)


def _tools(tools: Sequence[Mapping[str, Json]] | None) -> str | None:
    try:
        return None if tools is None else tools_in(msgspec.Raw(msgspec.json.encode(tools)))
    except NoCalls as error:
        raise UserMistake(f"tools: {error}") from error
