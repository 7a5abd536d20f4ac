"""How much of a run's pieces is worth a worker's while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from assay.storage.manifests import Converted, ConvertedPiece

#: So many records, or bytes of compressed records, are worth starting workers for: 8 CPU seconds of two
#: exports of short conversations. To start two workers takes 2.2 (measured, ``benchmarks/grow.py``'s data).
_WORTH_WORKERS_RECORDS = 1 << 18
_WORTH_WORKERS_BYTES = 64 << 20
#: A worker is handed pieces of so many records at least, or of so many compressed bytes: a piece of a small
#: file is no job.
_JOB_RECORDS = 1 << 15
_JOB_BYTES = 4 << 20


def is_much(converted: Converted, *, times: int = 1) -> bool:
    """Whether going through all records is worth starting workers for.

    ``times``: how many times less work this is than an export, for short conversations.
    """
    size = sum(piece.records.size for piece in converted.pieces)
    return converted.counts.read >= times * _WORTH_WORKERS_RECORDS or size >= _WORTH_WORKERS_BYTES


def in_jobs(pieces: Sequence[ConvertedPiece]) -> Iterator[range]:
    """Yield the numbers of all pieces, in order, in groups that are a job each."""
    first, records, size = 0, 0, 0
    for number, piece in enumerate(pieces):
        records += piece.counts.read
        size += piece.records.size
        if records >= _JOB_RECORDS or size >= _JOB_BYTES:
            yield range(first, number + 1)
            first, records, size = number + 1, 0, 0
    if first < len(pieces):
        yield range(first, len(pieces))
