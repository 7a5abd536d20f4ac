"""The rule about comparing: what orders or thresholds a Bradley-Terry ``reward`` across prompts is refused.

Such a model was trained on pairs of answers to one prompt. Its scores order answers to one prompt, and say
nothing across prompts. Within a group everything may be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.core.schema import GIVEN, REWARD
from assay.select.columns import ROW
from assay.select.expressions import Expression, GivenPair, InGroup, NamedColumn, outside
from assay.select.parser import Compared
from assay.select.tokens import mistake

_WHY = (
    "`{name}` compares answers to the same prompt (a Bradley-Terry model was trained on such pairs alone). "
    "Across prompts it says nothing, so {what} would keep easy prompts, not good answers. Compare within "
    "the prompt: `rank({name}) == 1`, `margin({name}) > 0`, `centred({name}) > 0`. Or rate with an attribute "
    "model (helpfulness, correctness, …), whose scores may have a threshold. Or add --allow-cross-prompt if "
    "your prompts are comparable"
)


def reward_across_prompts(expression: Expression) -> NamedColumn | None:
    """The reward that the expression takes across prompts; None where it takes none so."""
    return next(
        (
            part
            for part in outside(expression, InGroup, GivenPair)
            if isinstance(part, NamedColumn) and _is_reward(part.name)
        ),
        None,
    )


def check_threshold(text: str, compared: Sequence[Compared]) -> None:
    """Nothing, or UserMistake where a rule has a threshold on a reward across prompts."""
    for value, tokens in compared:
        if reward := reward_across_prompts(value):
            token = next(token for token in tokens if _bare(token.text) == _bare(reward.name))
            sentence = _WHY.format(name=token.text, what="a threshold")
            raise mistake(text, token, sentence, found="a threshold on")


def why_no_order(expression: Expression) -> str | None:
    """Why records of several prompts cannot be ordered by the expression; None where they can."""
    reward = reward_across_prompts(expression)
    return None if reward is None else _WHY.format(name=reward.name, what="an order")


def _is_reward(name: str) -> bool:
    """Whether it is a Bradley-Terry model's one number, also one of several models'."""
    return _bare(name) == REWARD and not name.startswith((ROW, GIVEN))


def _bare(name: str) -> str:
    return name.rpartition(".")[2]
