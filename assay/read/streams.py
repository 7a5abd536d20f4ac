"""The bytes of a file, decompressed as they are read: plain, gzip or zstd, in any number of members."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain

import zstandard

from assay.storage.regular import open_regular

_READ_BYTES = 1 << 20
# A zstd block of 4 bytes can unpack to 128 KiB: small reads bound what one call returns.
_ZSTD_BITE_BYTES = 1 << 12
# The largest window of zstd's own tool (--ultra --long=31). A frame that needs it takes as much memory.
_ZSTD_WINDOW_BYTES = 2 << 30

#: The byte order mark of UTF-8, which changes nothing.
BOM = b"\xef\xbb\xbf"

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A zstd frame that carries no data (RFC 8878, 3.1.2): 0x184D2A50 to 0x184D2A5F, little-endian.
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

# RFC 8878, 3.1.1: magic, descriptor, window, dictionary, content size.
_ZSTD_HEADER_BYTES = 4 + 1 + 1 + 4 + 8
# libzstd's words for a window above its own limit, which is 2 GiB where pointers have 64 bits.
_ZSTD_WINDOW_WORDS = "requires too much memory"


class CutShortError(Exception):
    """A compressed stream ended too early. The bytes before were yielded."""


def compression_of(start: bytes) -> str:
    """``gzip``, ``zstd`` or ``none``, for a file that begins with these bytes."""
    if start.startswith(_GZIP_MAGIC):
        return "gzip"
    if start.startswith(_ZSTD_MAGIC) or _ZSTD_SKIPPABLE.match(start):
        return "zstd"
    return "none"


def why_zstd_is_not_read(path: str) -> str | None:
    """Why the first frame that holds data cannot be unpacked; None where it can."""
    with open_regular(path) as file:
        while _ZSTD_SKIPPABLE.match(start := file.read(_ZSTD_HEADER_BYTES)):
            file.seek(int.from_bytes(start[4:8], "little") + 8 - len(start), os.SEEK_CUR)
    try:
        header = zstandard.get_frame_parameters(start)
    except zstandard.ZstdError as error:
        # A frame that is cut short or damaged is reported when it is read.
        if _ZSTD_WINDOW_WORDS not in str(error):
            return None
        return (
            f"its zstd frames need a window of more than {_ZSTD_WINDOW_BYTES >> 30} GiB in memory. "
            "Compress it again with `zstd --long=31` or less."
        )
    if header.dict_id:
        return (
            f"it needs zstd dictionary {header.dict_id}, which Assay does not have. "
            "Compress it again without a dictionary."
        )
    return None


def stream(path: str, compression: str) -> Iterator[bytes]:
    """Yield the file's decompressed bytes in order; CutShortError where they end too early."""
    if compression == "gzip":
        return _gunzipped(path)
    if compression == "zstd":
        return _unzstd(path)
    return plain(path, 0, None)


def plain(path: str, offset: int, length: int | None) -> Iterator[bytes]:
    """Yield the file's bytes from ``offset``, ``length`` of them or all."""
    with open_regular(path) as file:
        file.seek(offset)
        left = length
        while chunk := file.read(_READ_BYTES if left is None else min(_READ_BYTES, left)):
            yield chunk
            if left is not None:
                left -= len(chunk)


def _gunzipped(path: str) -> Iterator[bytes]:
    """Yield the content of a gzip file, of any number of members, at most 1 MiB at a time."""
    with open_regular(path) as file:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        packed = file.read(_READ_BYTES)
        while True:
            before = unpacker.copy()
            try:
                unpacked = unpacker.decompress(packed, _READ_BYTES)
            except zlib.error as error:
                yield from _up_to_the_fault(before.decompress, packed)
                raise CutShortError(f"the gzip data are damaged ({error})") from error
            if unpacked:
                yield unpacked
            if unpacker.eof:
                packed = unpacker.unused_data or file.read(_READ_BYTES)
                # Tape blocks are padded with zeros; gunzip ignores them too.
                while packed and not packed.strip(b"\0"):
                    packed = file.read(_READ_BYTES)
                packed = packed.lstrip(b"\0")
                if not packed:
                    return
                if len(packed) < len(_GZIP_MAGIC):
                    packed += file.read(_READ_BYTES)
                if not packed.startswith(_GZIP_MAGIC):
                    raise CutShortError("something that is not gzip follows the gzip data")
                unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            elif unpacker.unconsumed_tail:
                packed = unpacker.unconsumed_tail
            else:
                packed = file.read(_READ_BYTES)
                # At the end of the file zlib may still hold output that did not fit the last call.
                if not packed and len(unpacked) < _READ_BYTES:
                    raise CutShortError("the gzip data end in the middle")


def _up_to_the_fault(unpack: Callable[[bytes], bytes], packed: bytes) -> Iterator[bytes]:
    """Yield what unpacks from ``packed`` before the byte that makes unpacking fail, some bytes at a time.

    A library's call that fails returns nothing: not what comes before the fault, and not even the whole
    content where only the checksum at the end is wrong.
    """
    held = bytearray()
    with suppress(zlib.error, zstandard.ZstdError):
        for at in range(len(packed)):
            held += unpack(packed[at : at + 1])
            if len(held) >= _READ_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _zstd_unpacker() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()


def _unzstd(path: str) -> Iterator[bytes]:
    """Yield the content of a zstd file, of any number of frames, a bounded amount at a time."""
    with open_regular(path) as file:
        unpacker = _zstd_unpacker()
        # Where the frame begins, and where ``packed`` begins.
        frame = at = 0
        packed = file.read(_ZSTD_BITE_BYTES)
        while packed:
            try:
                unpacked = unpacker.decompress(packed)
            except zstandard.ZstdError as error:
                again = _zstd_unpacker()
                file.seek(frame)
                while frame < at and (passed := file.read(min(_ZSTD_BITE_BYTES, at - frame))):
                    again.decompress(passed)
                    frame += len(passed)
                yield from _up_to_the_fault(again.decompress, packed)
                raise CutShortError(f"the zstd data are damaged ({error})") from error
            if unpacked:
                yield unpacked
            at += len(packed)
            packed = unpacker.unused_data if unpacker.eof else b""
            if unpacker.eof:
                frame = at = at - len(packed)
                packed = packed or file.read(_ZSTD_BITE_BYTES)
                if not packed:
                    return
                unpacker = _zstd_unpacker()
            else:
                packed = file.read(_ZSTD_BITE_BYTES)
        raise CutShortError("the zstd data end in the middle")


def without_bom(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
    """The chunks without a leading byte order mark, and the length of that mark in bytes."""
    first = b""
    try:
        while len(first) < len(BOM) and (chunk := next(chunks, b"")):
            first += chunk
    except CutShortError as error:
        return chain((first,) if first else (), _raising(error)), 0
    found = len(BOM) if first.startswith(BOM) else 0
    return chain((first[found:],) if len(first) > found else (), chunks), found


def _raising(error: CutShortError) -> Iterator[bytes]:
    raise error
    yield b""
