"""A local model and a served one are two types, and one place decides by type how a model is scored."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import fakes
from places import ROOT

from assay.rewards.endpoint import Endpoint, Usage
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.remote.endpoints import served_spec
from assay.rewards.remote.service import ServiceModel
from assay.rewards.spec import LocalSpec, ModelReading, ServedSpec, Unknown
from assay.score.ways import ByRequests, ByWorkers, way_of
from assay.workers.cluster import ClusterOptions

ENDPOINT = Endpoint(
    "judge", "http://127.0.0.1:9/v1", "openai", "m", ("reward",), max_tokens=900, price_per_request=0.25
)

#: Where it is decided by type how a model is scored, which checks apply to it, and whose tokenizer counts.
DECIDING = {"assay/score/ways.py", "flows/verify/checked.py", "assay/select/token_counts.py"}


def asks_which_kind(path: Path) -> bool:
    """Whether the code compares a model with one of the two types, or an endpoint with None."""
    return any(
        re.search(r"\b(LocalSpec|ServedSpec)\b", ast.unparse(node))
        if isinstance(node, ast.MatchClass)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance")
        else isinstance(node, ast.Compare) and re.search(r"endpoint is (not )?None", ast.unparse(node))
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_one_place_each_decides_how_a_model_is_scored_checked_and_counted() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for package in ("assay", "tasks", "flows", "deployments")
        for path in (ROOT / package).rglob("*.py")
        if asks_which_kind(path)
    }
    assert asking == DECIDING


def test_the_two_types_share_their_head_and_nothing_else() -> None:
    local, served = ({field.name for field in dataclasses.fields(kind)} for kind in (LocalSpec, ServedSpec))
    assert local & served == {
        "name",
        "attributes",
        "fingerprint",
        "notes",
        "languages",
        "without_system",
        "factors",
    }


def test_a_local_model_is_scored_by_workers_and_a_service_by_requests(tmp_path: Path) -> None:
    workers = ClusterOptions(workers=3)
    assert way_of(fakes.spec(tmp_path), cluster=workers) == ByWorkers(fakes.spec(tmp_path), workers)
    way = way_of(served_spec(ENDPOINT))
    assert way == ByRequests(served_spec(ENDPOINT), None)
    assert isinstance(way.opened(), ServiceModel)


def test_reports_name_how_a_model_is_read(tmp_path: Path) -> None:
    starter = local_spec("starter", ModelOptions(dtype="bfloat16", max_tokens=512, read_at="last-token"))
    assert starter.reading == ModelReading(
        family="sequence-classification",
        dtype="bfloat16",
        over_length="quarantine",
        max_tokens=512,
        read_at="last-token",
    )
    assert served_spec(ENDPOINT).reading == ModelReading("openai", "as served", "quarantine", 900)


def test_what_is_not_known_of_a_model_is_said_with_the_reason(tmp_path: Path) -> None:
    local, served = fakes.spec(tmp_path), served_spec(ENDPOINT)
    assert local.trained_length == Unknown("how long conversations fake was trained on is not known")
    assert dataclasses.replace(local, trained_tokens=40, unseen=()).trained_length == 40
    assert dataclasses.replace(local, trained_tokens=40, unseen=()).unseen_messages == ()
    assert "is a service" in served.trained_length.why
    assert "is a service" in served.unseen_messages.why


def test_a_price_is_of_services_alone(tmp_path: Path) -> None:
    assert fakes.spec(tmp_path).usage(4, 100) is None
    assert served_spec(ENDPOINT).usage(4, 100) == Usage(requests=4, tokens=100, cost=1.0, currency="USD")
    free = dataclasses.replace(ENDPOINT, price_per_request=0.0)
    assert served_spec(free).usage(4, 100).cost is None


def test_digests_are_of_weights_that_are_here() -> None:
    digests = local_spec("starter").digests_of_weights()
    assert list(digests) == ["model.safetensors"]
    assert served_spec(ENDPOINT).digests_of_weights() is None
