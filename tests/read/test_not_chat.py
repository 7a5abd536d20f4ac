"""What is no chat file is refused by its first bytes, with what to do; what describes data is no row."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard
from converting import PAIR_LINE
from hypothesis import given
from hypothesis import strategies as st
from stages import take_inventory

from assay.core.errors import UserMistake
from assay.read.inventory import check_inputs
from assay.read.not_chat import why_no_chat


def zipped(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        about = tarfile.TarInfo(name)
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    return packed.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
TEXT = PAIR_LINE.decode()

REFUSED = {
    "lfs.jsonl": (POINTER, "is a Git LFS pointer.*`git lfs pull`"),
    "lfs.parquet": (POINTER, "is a Git LFS pointer"),
    "lfs.jsonl.gz": (POINTER, "is a Git LFS pointer"),
    "book.xlsx": (zipped({"[Content_Types].xml": b"<a/>", "xl/workbook.xml": b"<b/>"}), "spreadsheet.*CSV"),
    "book.ods": (zipped({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet"}), "spreadsheet.*CSV"),
    "book.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an Office file, perhaps a spreadsheet"),
    "rows.zip": (zipped({"rows.jsonl": PAIR_LINE}), "zip is not read. Decompress it"),
    "cut.xlsx": (zipped({"xl/workbook.xml": b"<b/>" * 99})[:120], "zip is not read"),
    "rows.pkl": (pickle.dumps([1]), "is a pickle, which can run code"),
    "rows.pt": (zipped({"archive/data.pkl": pickle.dumps([1])}), "is a pickle, which can run code"),
    "rows.npy": (b"\x93NUMPY\1\0", "is a NumPy array"),
    "with-mark.jsonl": (TEXT.encode("utf-16"), "is UTF-16 text.*`iconv -f UTF-16 -t UTF-8"),
    "little.csv": (TEXT.encode("utf-16-le"), "is UTF-16LE text.*`iconv -f UTF-16LE"),
    "big.jsonl": (TEXT.encode("utf-16-be"), "is UTF-16BE text"),
    "wide.jsonl": (TEXT.encode("utf-32"), "is UTF-32 text"),
    "packed.jsonl.gz": (gzip.compress(TEXT.encode("utf-16"), mtime=0), "is UTF-16 text"),
    "paper.pdf": (b"%PDF-1.7\n%\xe2\xe3", "is a PDF"),
    "page.jsonl": (b"\n<!DOCTYPE html><html><body>Log in", "is an HTML or XML page.*login"),
    "page.json": (b"\xef\xbb\xbf<html lang=en>", "is an HTML or XML page"),
    "rows.tar.gz": (gzip.compress(tarred("rows.jsonl", PAIR_LINE), mtime=0), "is a tar archive.*tar -xf"),
    "rows.tar.zst": (zstandard.compress(tarred("rows.jsonl", PAIR_LINE)), "is a tar archive"),
    "rows.tar": (tarred("rows.jsonl", PAIR_LINE), "is a tar archive"),
    "chat.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is an image"),
    "chat.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is an image"),
    "model.safetensors": (b'\x40\0\0\0\0\0\0\0{"a"', "holds a model's weights"),
    "rows.db": (b"SQLite format 3\0", "is an SQLite database"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chat_file_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    data, said = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserMistake, match=said) as refused:
        take_inventory([str(path)])
    assert str(refused.value).startswith(f"{path}: ")


def test_a_file_that_is_named_is_refused_before_a_server_or_a_model_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(POINTER)
    with pytest.raises(UserMistake, match="is a Git LFS pointer"):
        check_inputs([str(path)])


@given(st.text(min_size=1).filter(lambda text: not text.lstrip("\ufeff\n\t\r ").startswith("<")))
def test_no_json_and_no_csv_is_taken_for_something_else(text: str) -> None:
    for row in (f'{{"prompt": "{text}"}}', f"[{text}", f"prompt,{text}", f"{text},response", f'"{text}",b'):
        assert why_no_chat(row.encode()) is None or "\0" in text or text.startswith(("version", "%PDF"))


@pytest.mark.parametrize("given", ["", "*", "**/*"])
def test_files_that_describe_data_are_no_rows(tmp_path: Path, given: str) -> None:
    beside = (
        "dataset_info.json",
        "state.json",
        "dataset_dict.json",
        "model.safetensors.index.json",
        "README.json",
    )
    for name in ("rows.jsonl", *beside):
        (tmp_path / name).write_bytes(PAIR_LINE + b"\n")
    said: list[str] = []
    inventory = take_inventory([str(tmp_path / given)], say=said.append)
    assert [file.path for file in inventory.files] == [str(tmp_path / "rows.jsonl")]
    assert sorted(said) == [f"{tmp_path / name}: describes data, and is not read" for name in sorted(beside)]
    # Who names one means it.
    assert len(take_inventory([str(tmp_path / "state.json")]).files) == 1
