"""Files that hold no chat rows, recognised by their first bytes: what each is, and what to do about it."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from assay.storage.regular import open_regular

#: Bytes from the beginning that are looked at. A tar's mark lies at byte 257.
LOOKED_AT_BYTES = 1024

_SPREADSHEET = "is a spreadsheet. Save the sheet as CSV in UTF-8, and name that file."
_PICKLE = "is a pickle, which can run code when it is opened. Write its rows as JSON lines."
_PICTURE = "is an image. Name the file of chat rows."
_SOUND = "is audio or video. Name the file of chat rows."
_UNPACK = "{} is not read. Decompress it, or use gzip or zstd."
_MODEL = "holds a model's weights. Name a file of chat rows; a model's folder goes to --model."


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file that is refused: its first bytes as a pattern, and what the user reads."""

    begins: re.Pattern[bytes]
    said: str


def _kind(pattern: bytes, said: str) -> _Kind:
    return _Kind(re.compile(pattern, re.DOTALL), said)


# The marks are those of the formats' specifications. libmagic has them too (github.com/file/file).
_KINDS = (
    # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    _kind(
        rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/",
        "is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository.",
    ),
    _kind(rb"BZh[1-9]", _UNPACK.format("bzip2")),
    _kind(rb"\xfd7zXZ", _UNPACK.format("xz")),
    _kind(rb"7z\xbc\xaf", _UNPACK.format("7-Zip")),
    _kind(rb"Rar!\x1a\x07", _UNPACK.format("RAR")),
    _kind(rb"\x04\x22\x4d\x18", _UNPACK.format("lz4")),
    _kind(rb"\xff\x06\x00\x00sNaPpY", _UNPACK.format("snappy")),
    _kind(
        rb".{257}ustar[\0 ]",
        "is a tar archive. Unpack it with `tar -xf`, and name the files in it or their folder.",
    ),
    _kind(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _SPREADSHEET.replace("is a", "is an Office file, perhaps a")),
    _kind(rb"%PDF-", "is a PDF. Name the file of chat rows."),
    # Protocols 2 to 5: PROTO, then the protocol (pickletools). No UTF-8 text begins with 0x80.
    _kind(rb"\x80[\x02-\x05]", _PICKLE),
    _kind(rb"\x93NUMPY", "is a NumPy array. Write its rows as JSON lines."),
    _kind(rb"\x89HDF\r\n\x1a\n", "is an HDF5 file. Write its rows as JSON lines or Parquet."),
    _kind(rb"SQLite format 3\0", "is an SQLite database. Export the table as CSV or JSON lines."),
    _kind(rb"Obj\x01", "is an Avro file. Write its rows as JSON lines or Parquet."),
    _kind(rb"ORC[^ -~]", "is an ORC file. Write its rows as JSON lines or Parquet."),
    _kind(
        rb"FEA1", "is a Feather file of version 1. Write it again as Arrow (Feather version 2) or Parquet."
    ),
    # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: the version is a small number.
    _kind(rb"GGUF[\x01-\x09]\0\0\0", _MODEL),
    # https://github.com/huggingface/safetensors: the header's length in 8 bytes, then JSON.
    _kind(rb".{3}\0{5}\{\"", _MODEL),
    _kind(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*", _PICTURE),
    _kind(rb"RIFF.{4}(?:WAVE|AVI )|OggS\0|fLaC|ID3[\x02-\x04]\0|\0\0\0.ftyp", _SOUND),
    _kind(
        rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!doctype|<html|<!--))",
        "is an HTML or XML page, not rows. A download that needs a login often ends in such a page: "
        "open the file and see.",
    ),
)

_UTF = "is {0} text. Convert it: `iconv -f {0} -t UTF-8 FILE > NEW`."


def why_no_chat(begin: bytes) -> str | None:
    """What a file that begins with these bytes is, and what to do; None where it may hold chat rows.

    The sentence goes on after the file's name. A zip is not looked into: see ``why_zip_is_not_read``.

    >>> why_no_chat(b"%PDF-1.7 ...")
    'is a PDF. Name the file of chat rows.'
    """
    begin = begin[:LOOKED_AT_BYTES]
    for kind in _KINDS:
        if kind.begins.match(begin):
            return kind.said
    encoding = _wide_encoding(begin)
    return None if encoding is None else _UTF.format(encoding)


def _wide_encoding(begin: bytes) -> str | None:
    """``iconv``'s name of the encoding of a text whose characters take two or four bytes; None for others.

    Rows begin with some ASCII, which in UTF-16 has a NUL in every other byte.
    """
    if begin.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    for encoding, first_nul in (("UTF-16BE", 0), ("UTF-16LE", 1)):
        ascii_bytes = begin[1 - first_nul : 8 : 2]
        if len(begin) >= 8 and not any(begin[first_nul:8:2]) and all(ascii_bytes) and ascii_bytes.isascii():
            return encoding
    return None


_ZIP = b"PK\x03\x04"


def why_file_is_no_chat(path: str) -> str | None:
    """As ``why_no_chat`` for the file at ``path``; a zip is named by what it packs. OSError as ``open``."""
    with open_regular(path) as file:
        begin = file.read(LOOKED_AT_BYTES)
    return _why_zip_is_not_read(path) if begin.startswith(_ZIP) else why_no_chat(begin)


def _why_zip_is_not_read(path: str) -> str:
    names: list[str] = []
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            kind = b""
            if "mimetype" in names:
                with archive.open("mimetype") as stated:
                    kind = stated.read(100)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error):
        # Damaged, encrypted, or of a version that Python does not know: it is a zip all the same.
        kind = b""
    for packs, said in _IN_A_ZIP:
        if packs(names, kind):
            return said
    return _UNPACK.format("zip")


_IN_A_ZIP: tuple[tuple[Callable[[list[str], bytes], bool], str], ...] = (
    (lambda names, kind: any(name.startswith("xl/") for name in names), _SPREADSHEET),
    (lambda names, kind: b"opendocument.spreadsheet" in kind, _SPREADSHEET),
    (
        lambda names, kind: any(name.startswith("word/") for name in names) or b"opendocument" in kind,
        "is an Office document. Name the file of chat rows.",
    ),
    # torch.save since 1.6: NAME/data.pkl
    (lambda names, kind: any(PurePosixPath(name).name == "data.pkl" for name in names), _PICKLE),
    (
        lambda names, kind: bool(names) and all(name.endswith(".npy") for name in names),
        "holds NumPy arrays. Write their rows as JSON lines.",
    ),
)
