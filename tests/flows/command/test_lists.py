"""``assay formats`` and ``assay exports`` name everything, in lines that a person can read."""

from __future__ import annotations

import pytest

from assay.export import EXPORTS
from assay.read.formats import FORMATS
from flows.command.lists import exports, formats


def test_every_format_has_a_line_that_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert formats([], "assay formats") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(FORMATS)
    # A pair of answers is recognised by some 120 combinations of names.
    assert max(map(len, lines)) < 250
    assert any("more ways: docs/formats.md" in line for line in lines)


def test_every_export_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exports([], "assay exports") == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == list(EXPORTS)
