"""A run's ``manifest.json`` in its output folder: what it did, with what, and the results. Written last.

``docs/results.md`` describes it field by field, from the docstrings of ``RunManifest``'s fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from assay.storage.manifests import Counts, InputFile, Shortfall
from assay.storage.regular import NotRegular, read_regular
from assay.storage.sealed import DIGEST, Altered, decoded, is_as_sealed, sealed

#: The run's manifest in its output folder. Assay may replace a folder that has one.
RUN_MANIFEST = "manifest.json"
#: The run's page beside it, which people look at. It is no result: no file depends on it.
REPORT = "report.html"
#: How each page of ours begins, and no other program's.
PAGE_BEGINS = b'<!doctype html>\n<html lang="en" data-page="assay">'
#: Only a run's manifest has this key; other programs' ``manifest.json`` do not.
RUN_MANIFEST_KEY = "assay"
#: Ends the name of the folder beside the output folder that takes the files of a run without usable records.
UNUSABLE = ".unusable"
_A_RUN = "run"


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One result file."""

    digest: str
    """BLAKE2b-128 of its bytes, as ``home.digest_of_file`` computes it."""
    size: int
    """Bytes."""
    rows: int | None
    """Lines, or rows of a table; None where it has none."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote. ``rows`` and ``left_out`` add up to all that was kept, in the export's unit:
    records, turns or pairs. A table of every record also has rows of those that were not kept."""

    file: str
    """Its name in the output folder."""
    rows: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Kept items that the file does not hold, by reason code."""
    without: dict[str, int] = field(default_factory=dict)
    """Fields of messages that the file's rows lack, by name: of how many items that it does hold."""
    sides: dict[str, str] = field(default_factory=dict)
    """The files of a split by the names of its sides, of which ``file`` is the first and ``rows`` are all;
    empty where the export is not split."""
    has_tools: bool = False
    """Whether its rows have a column of tools."""
    shards: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """With ``--shard-size`` the numbered files, in order, by side, or of ``train`` where the export is not
    split. ``file`` and ``sides`` then name the first ones."""

    @property
    def by_side(self) -> Mapping[str, tuple[str, ...]]:
        """All its files, in order, by side; of ``train`` where the export is not split."""
        sides = self.sides or {"train": self.file}
        return self.shards or {side: (name,) for side, name in sides.items()}


@dataclass(frozen=True, slots=True)
class PairsMade:
    """The pairs of a run, and the prompts that gave none."""

    prompts: int
    """Different prompts of the kept records; in a conversation every turn answers one.
    A prompt whose answers are on several sides of a split counts on each."""
    pairs: int
    without: dict[str, int]
    """Prompts that gave no pair, by reason."""
    passed_over: dict[str, int]
    """What would have been pairs, by the reason why they are not."""
    margins: dict[str, float]
    """The margin below which 5, 25, 50, 75 and 95 percent of the pairs lie."""
    chosen_longer: float | None
    """The share of the pairs whose chosen answer is the longer one, 0 to 1; null without pairs."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbers of records by outcome."""

    read: int
    """The sum of the other three."""
    kept: int
    dropped: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns of the records that could be converted."""

    scored: int = 0
    """Distinct turns that the model rated in this run."""
    reused: int = 0
    """Rated by an earlier run, or equal to another turn of this run."""
    failed: int = 0
    """Without a score."""


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """What one worker's device did in this run."""

    worker: str
    device: str
    shards: int
    turns: int
    tokens: int
    tokens_per_second: float
    busy: float
    """The share of the time in which its model was at work, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How the last turns of the scored records score in one attribute."""

    quantiles: dict[str, float]
    """The scores below which 5, 25, 50, 75 and 95 per cent lie."""
    kept_at: dict[str, float]
    """By threshold, the share that is at least as large."""
    outside_labels: int = 0
    """How many lie outside of the 0 to 4 that labels have: a label clamps them, a rule does not."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What selecting came to, besides the numbers of records."""

    reading: str = ""
    """What the rules are asked of; empty without rules."""
    turns: dict[str, int] = field(default_factory=dict)
    """Turns of kept records that are ``cut`` or ``masked``."""
    notes: tuple[str, ...] = ()
    """Sentences without a full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunModel:
    """The model that gave the scores. An earlier version did not write the fields that have a default."""

    name: str
    fingerprint: str
    """32 hex digits. With equal fingerprints, equal conversations get equal scores."""
    family: str = ""
    family_named: bool = False
    """Whether a person named the family because the model's folder does not say it."""
    read_at: str | None = None
    add_bos: bool | None = None
    attributes: tuple[str, ...]
    weights: dict[str, float]
    """The factors that make one number of the attributes, if there are any."""
    max_tokens: int | None
    over_length: str
    dtype: str
    notes: tuple[str, ...]
    """What users of these scores should know, also what was found when the model was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """What a run did. A manifest of an earlier version lacks the fields that have a default."""

    assay: str
    """The version of Assay."""
    versions: dict[str, str | None]
    """Versions of Python and of the packages that can change a result; null where one is not installed."""
    complete: bool
    """False where an input is cut short or damaged."""
    shortfalls: tuple[Shortfall, ...] = ()
    """The inputs that are not complete: `file`, `why`, and how many records are `quarantined` for it."""
    unusable: str | None = None
    """Why no record could be used; null where one could."""
    output: str = ""
    """The folder of the results: the one that the run named, or the one beside it."""
    rows: Rows
    """Records: `read` is the sum of `kept`, `dropped` and `quarantined`."""
    dropped: dict[str, int]
    """Dropped records, by reason."""
    selected: Selected = field(default_factory=Selected)
    """How the rules were read (`reading`), the turns of kept records that are `cut` or `masked`, and `notes`:
    what a person should know of the rules, of the target and of the sides of a split."""
    quarantined: dict[str, int]
    """Quarantined records, by reason."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Fields of the input that are neither in the messages nor carried along: by name, of how many
    records."""
    lines: int
    """Lines that were read: array elements and Parquet rows are lines too."""
    turns: Turns
    """`scored` by this run, `reused` from the store or repeated, `failed` without a score."""
    failed: dict[str, int]
    """Turns without a score, by reason."""
    repeated: int = 0
    """Records that say the same as an earlier one, up to the last turn."""
    reasoning_turns: int = 0
    """Turns that hold reasoning: in a field of the message, or as `<think>…</think>` before the answer."""
    warnings: dict[str, int] = field(default_factory=dict)
    """By warning, how many conversations it applies to: the model's card does not vouch for them, or the
    model sees only a part of them."""
    spread: dict[str, Spread] = field(default_factory=dict)
    """For each attribute, how the last turns of the scored records score: `quantiles` (5, 25, 50, 75, 95),
    `kept_at` (by threshold, the share that is at least as large), and how many are `outside_labels`, below 0
    or above 4."""
    observations: tuple[str, ...] = ()
    """What people should know of the data before they use it, in sentences; empty without a page."""
    devices: tuple[DeviceWork, ...] = ()
    """One entry for each worker that scored in this run: shards, turns, tokens a second, and `busy`, the
    share of the time in which its model was at work."""
    model: RunModel | None
    """Name, fingerprint, family (and whether a person named it), where it is read, attributes, weights,
    limits and notes of the one model; null without scores. Notes also hold what was found when the model
    was opened, by this run or by the one whose scores it uses."""
    models: dict[str, RunModel] = field(default_factory=dict)
    """Each model by its name in this run; empty without scores."""
    inputs: tuple[InputFile, ...]
    """Path, digest, size and format of every file read."""
    files: dict[str, ExportedFile]
    """Digest, size and rows of every result file; rows are null where it has none."""
    report: str | None = None
    """The page beside this file, which shows the run; null where none was made."""
    exports: dict[str, Written] = field(default_factory=dict)
    """For each export by its name (`converted` after `--stop-after convert`): `file`, `rows`, `left_out` (the
    kept items that the file does not hold, by reason), `without` (the fields of messages that its rows lack,
    by name: of how many items), the files of a split by its `sides`,
    and with `--shard-size` all files by side (`shards`)."""
    pairs: PairsMade | None = None
    """The pairs that preference exports hold: how many `prompts` and `pairs`, the prompts `without` one and
    what was `passed_over` by reason, `margins` by percent of the pairs, and in what share the chosen answer
    is the longer one (`chosen_longer`); null where no export wants any."""
    options: dict[str, Any]
    """The options of the run."""
    seconds: dict[str, float]
    """How long each stage took, without the start-up."""

    @property
    def counts(self) -> Counts:
        """The records by outcome and reason."""
        return Counts(self.rows.kept, self.dropped, self.quarantined)

    @property
    def is_beside(self) -> bool:
        """Whether the files lie beside the output folder that was asked for, which stays as it was."""
        return bool(self.output != self.options["output"])

    def as_written(self) -> dict[str, Any]:
        """The content of the file: JSON's own types, with a digest of everything else."""
        return sealed(msgspec.to_builtins(self), about=_A_RUN)


class NoManifest(Exception):
    """The file is not a run's manifest; the text says why."""


def read_run_manifest(path: Path) -> RunManifest:
    """The manifest in that file.

    ``Altered`` where it was altered; one without a digest, of an earlier version, is accepted.
    ``NoManifest`` where it is no run's manifest, ``OSError`` where it cannot be read.
    """
    try:
        content = decoded(read_regular(path))
        manifest = msgspec.convert(content, RunManifest)
    except (Altered, msgspec.ValidationError, NotRegular) as error:
        raise NoManifest(str(error)) from error
    if not is_as_written(content):
        raise Altered("its digest does not match its content")
    return manifest


def run_manifest_in(folder: Path) -> dict[str, Any] | None:
    """The manifest of the run whose results the folder holds; None where it holds no run's results."""
    try:
        manifest = msgspec.json.decode(read_regular(folder / RUN_MANIFEST))
    except (
        FileNotFoundError,
        NotADirectoryError,
        IsADirectoryError,
        NotRegular,
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get(RUN_MANIFEST_KEY), str):
        return None
    return manifest if isinstance(manifest.get("files", {}), dict) else None


def is_damaged_run_manifest(path: Path) -> bool:
    """Whether the file looks like a run's manifest that was cut or altered and is no longer JSON."""
    try:
        data = read_regular(path)
        msgspec.json.decode(data)
    except OSError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f'"{RUN_MANIFEST_KEY}"'.encode() in data
    return False


def is_as_written(manifest: Mapping[str, Any]) -> bool:
    """Whether a run's manifest is unaltered. One without a digest, of an earlier version, is accepted."""
    return DIGEST not in manifest or is_as_sealed(manifest, about=_A_RUN)
