"""What the first rows of the inputs look like, for whoever has to see why none of them could be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from assay.core.errors import AssayError
from assay.core.text import printable
from assay.export.contract import Export, refusals
from assay.export.kept import Item, items_of
from assay.export.results import kept_records
from assay.read.damage import DamagedTable
from assay.read.remote_inputs import local_path
from assay.read.sources import DAMAGED_ROW_GROUP, read_originals
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted, ConvertedPiece, Filtered, Scored, reason_code

#: Rows that are shown.
_MOST = 3
#: Characters of a row that are shown, and bytes that are read for them.
_CHARACTERS = 100
_BYTES = 4 * _CHARACTERS + 3


def first_rows(
    converted: Converted,
    filtered: Filtered | None,
    home: Home,
    *,
    scored: Scored | None = None,
    exports: Sequence[Export[Item]] = (),
) -> Iterator[str]:
    """Yield a printable line for each of the first rows: where it is, why it was not used, its beginning.

    Without decisions the reasons are those of convert. What was kept has the reason of the first of the
    exports. Several records of one row count once.
    """
    shown = 0
    inputs = {file.path: file for file in converted.inputs}
    for number, piece in enumerate(converted.pieces):
        reasons = _reasons(number, piece, filtered, scored, exports, home)
        rows = _rows(piece, reasons, home).head(_MOST - shown)
        places = rows.select("line", "offset", "length", "reason").rows()
        spans = [
            (offset, min(length, _BYTES)) for _, offset, length, reason in places if not _is_lost(reason)
        ]
        try:
            originals = list(read_originals(local_path(inputs[piece.file], home), spans))
        except (AssayError, OSError, DamagedTable):
            # The file has changed, or is gone: where the rows were is known all the same.
            originals = []
        left = iter(originals)
        for line, _, _, reason in places:
            if _is_lost(reason):
                text = "(cannot be read)"
            else:
                original = next(left, None)
                text = "(cannot be read again)" if original is None else _beginning(original)
            yield f"{printable(piece.file)}:{line} ({printable(reason_code(reason or ''))}): {text}"
        shown += rows.height
        if shown >= _MOST:
            return


def _is_lost(reason: str | None) -> bool:
    """Whether there is nothing to show of a record, whose offset is not its own."""
    return reason_code(reason or "") == DAMAGED_ROW_GROUP


def _rows(piece: ConvertedPiece, reasons: pl.DataFrame, home: Home) -> pl.DataFrame:
    """The piece's rows: line, offset, length, reason; ascending."""
    records = read_artifact(piece.records, home, ["row", "line", "offset", "length"])
    records = records.join(reasons, on="row", how="left", maintain_order="left")
    return records.unique("line", keep="first", maintain_order=True).sort("line")


def _reasons(
    number: int,
    piece: ConvertedPiece,
    filtered: Filtered | None,
    scored: Scored | None,
    exports: Sequence[Export[Item]],
    home: Home,
) -> pl.DataFrame:
    """Why the records of the piece of this number are in no file: row, reason."""
    if filtered is None:
        return read_artifact(piece.records, home, ["row", "reason"])
    decided = read_artifact(filtered.pieces[number].decisions, home, ["row", "reason"])
    if not exports:
        return decided
    scores, attributes = (scored.pieces[number], scored.attributes) if scored else (None, ())
    left_out = [
        kept.records.select("row", pl.Series("left_out", refusals(exports[0], items_of(kept)), pl.String))
        for kept in kept_records(piece, scores, filtered.pieces[number], attributes, home)
    ]
    if not left_out:
        return decided
    joined = decided.join(pl.concat(left_out), on="row", how="left", maintain_order="left")
    return joined.select("row", pl.coalesce("reason", "left_out").alias("reason"))


def _beginning(original: bytes) -> str:
    text = printable(original[:_BYTES].decode(errors="replace").strip())
    return f"{text[:_CHARACTERS]} …" if len(text) > _CHARACTERS else text
