"""What a name stands for: an operator's folder, a service, or a model of the catalog, the Hub or a folder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from assay.core.errors import UserMistake
from assay.rewards.catalog import CATALOG
from assay.rewards.endpoint import Endpoint
from assay.rewards.find import KnownModels, find_model
from assay.rewards.options import ModelOptions
from assay.rewards.spec import LocalSpec, ServedSpec

JUDGE = Endpoint("judge", "http://127.0.0.1:9/v1", "openai", "m", ("helpfulness", "verbosity"), revision="1")
STARTER = Path(CATALOG["starter"].source)

#: Of every option that is for local models, a value.
FOR_LOCAL_MODELS: dict[str, Any] = {
    "dtype": "bfloat16",
    "revision": "v2",
    "known_as": "nvidia/Qwen-2.5-Nemotron-32B-Reward",
    "family": "first-token-logit",
    "read_at": "last-token",
    "add_bos": True,
    "attributes": ("helpfulness",),
    "max_tokens": 512,
}


def test_a_folders_name_comes_before_a_services_and_a_services_before_the_catalogs() -> None:
    starter = replace(JUDGE, name="starter")
    served = find_model("starter", KnownModels(endpoints={"starter": starter}))
    assert isinstance(served, ServedSpec)
    both = KnownModels(folders={"starter": STARTER}, endpoints={"starter": starter})
    assert isinstance(find_model("starter", both), LocalSpec)
    assert find_model("house", KnownModels(folders={"house": STARTER})).name == "house"


def test_every_option_but_two_is_for_local_models() -> None:
    assert {field.name for field in fields(ModelOptions)} - FOR_LOCAL_MODELS.keys() == {
        "over_length",
        "factors",
    }


@pytest.mark.parametrize("option", FOR_LOCAL_MODELS)
def test_a_service_is_refused_what_its_operator_decides(option: str) -> None:
    options = ModelOptions(**{option: FOR_LOCAL_MODELS[option]})
    name = "--" + option.removeprefix("known_").replace("_", "-")
    with pytest.raises(UserMistake, match=f"^{name}: judge is a service, whose operator says that"):
        find_model("judge", KnownModels(endpoints={"judge": JUDGE}), options)


def test_no_service_leaves_the_beginning_of_a_conversation_out() -> None:
    with pytest.raises(UserMistake, match=r"^--over-length left-truncate: judge is a service"):
        find_model(
            "judge", KnownModels(endpoints={"judge": JUDGE}), ModelOptions(over_length="left-truncate")
        )


def test_a_run_may_sum_the_attributes_of_a_service() -> None:
    options = ModelOptions(factors={"helpfulness": 0.5})
    found = find_model("judge", KnownModels(endpoints={"judge": JUDGE}), options)
    assert found.columns == ("helpfulness", "verbosity", "weighted_reward")
