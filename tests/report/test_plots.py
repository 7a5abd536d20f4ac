"""Every score is in one bar, and the picture runs and fetches nothing."""

from __future__ import annotations

import base64
from pathlib import Path
from xml.etree import ElementTree

from handmade import Record, Turn, make

from assay.report.plots import Histogram, histograms, picture, picture_address
from assay.storage.home import Home


def test_every_score_is_counted_once(tmp_path: Path) -> None:
    records = [Record(n, turns=(Turn((float(n), 1.5)),)) for n in range(1, 6)]
    failed = Record(9, turns=(Turn(None, "not_finite: nan"),))
    made = make(Home(tmp_path), {"a": [records[:2], [*records[2:], failed]]}, ("helpfulness", "verbosity"))
    helpfulness, verbosity = histograms(made.scored, made.home)
    assert (helpfulness.attribute, helpfulness.low, helpfulness.high) == ("helpfulness", 1.0, 5.0)
    assert sum(helpfulness.counts) == 5
    assert (helpfulness.counts[0], helpfulness.counts[-1]) == (1, 1)
    # All alike: one bar.
    assert max(verbosity.counts) == sum(verbosity.counts) == 5


def test_an_attribute_without_scores_has_no_picture(tmp_path: Path) -> None:
    made = make(Home(tmp_path), {"a": [[Record(1, turns=(Turn(None, "too_long"),))]]}, ("helpfulness",))
    assert histograms(made.scored, made.home) == []


def test_the_picture_is_whole_and_escapes_names() -> None:
    drawn = picture([Histogram("<script>&", 0.0, 4.0, (1, 0, 3))])
    tree = ElementTree.fromstring(drawn)
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert names == {"svg", "rect", "text", "line"}
    assert "href" not in drawn
    encoded = picture_address([Histogram("a", 0.0, 1.0, (1,))]).partition("base64,")[2]
    assert base64.b64decode(encoded).startswith(b"<svg ")
