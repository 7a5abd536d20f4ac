"""A folder with a model's files → what is known of the model in it.

Nothing here imports torch: a run that has every score already opens no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from assay.core.errors import UserMistake
from assay.core.schema import ATTRIBUTES, FLAGS, REWARD, SCORE, WEIGHTED_REWARD
from assay.core.text import did_you_mean
from assay.rewards import not_read
from assay.rewards.architectures import (
    Recognised,
    architectures_of,
    check_claim,
    check_reading,
    is_armorm,
    reading_of,
)
from assay.rewards.catalog import CATALOG, HELPSTEER, Entry
from assay.rewards.families import (
    APPENDED_CLS,
    FAMILIES,
    GATED_OBJECTIVES,
    HEAD_IN_WEIGHTS,
    PAIR_CLASSIFICATION,
    SEQUENCE_CLASSIFICATION,
)
from assay.rewards.fingerprint import WEIGHTS, fingerprint
from assay.rewards.folders import INDEX, folders_of
from assay.rewards.head_in_weights import VALUE_HEAD
from assay.rewards.options import LoadOptions, ModelOptions
from assay.rewards.probing import unseen_in
from assay.rewards.scalar import check_factors
from assay.rewards.sizes import SIZES
from assay.rewards.spec import LocalSpec
from assay.rewards.templates import named_token, why_no_template
from assay.storage.regular import read_json_object

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Columns that stand beside the attributes in every table of scores.
_RESERVED = frozenset(
    {
        "row",
        "turn",
        "key",
        "reason",
        "tokens_cut",
        "tokens",
        "segment",
        "messages",
        SCORE,
        WEIGHTED_REWARD,
        *FLAGS,
    }
)

#: Families whose heads have as many outputs as they were trained with.
_NAMED_OUTPUTS = (SEQUENCE_CLASSIFICATION, PAIR_CLASSIFICATION, HEAD_IN_WEIGHTS)

#: TRL's PPO, and LLaMA-Factory's, save a policy with its value head under the very names of a reward model.
_MAY_BE_A_CRITIC = (
    "{name} is scored by its value head. A policy that was trained with PPO has one too, which predicts what "
    "it will be rewarded with: make sure that this folder is of a reward model."
)


def local_spec(
    name: str,
    options: ModelOptions = ModelOptions(),
    loading: LoadOptions = LoadOptions(),
    digest_cache: Path | None = None,
) -> LocalSpec:
    """The model of that catalog name, folder, or Hub id; ``UserMistake`` where none can be used.

    ``digest_cache`` is a JSON file in which digests of large weights are kept by size and time.
    """
    entry = _entry(name, options.known_as)
    if entry.service_only:
        raise UserMistake(
            f"model {name} has no weights that can be loaded here; it is used through a service: configure "
            "an endpoint that serves it"
        )
    dtype = options.dtype or entry.dtype or "float32"
    folders = folders_of(name, entry.source, options.revision, loading)
    folder, adapter = folders.model, folders.adapter
    config = read_json_object(folder / "config.json")
    _check_weights(name, folder)
    if options.known_as is not None:
        check_claim(options.known_as, entry.family, name, folder, config, adapter)
    reading = reading_of(name, folder, config, entry.family, options.family, adapter)
    family = reading.family
    if adapter is None:
        not_read.check_head(name, folder, family)
    check_reading(name, family, options.read_at, options.add_bos)
    add_bos = True if options.add_bos is None and entry.add_bos else options.add_bos
    _check_tokenizer(name, folders.tokenizer, pair=FAMILIES[family].pair)
    # An encoder is shown question and answer, and whatever stands before, without a template.
    unseen = () if FAMILIES[family].pair else unseen_in(name, folders.tokenizer)
    given = _given_attributes(name, options.attributes, entry, reading, config)
    attributes = given or entry.attributes or _attributes(name, reading, config)
    max_tokens = _limit(name, folders.tokenizer, config, entry, options.max_tokens)
    remote_code = _needs_its_code(config, family) and _code_may_run(name, folder, config, loading)
    notes = entry.notes
    if reading.named:
        notes = (*notes, f"{name} is read as {family} because --family, or its operator, says so.")
    if options.known_as is not None:
        unchecked = "" if options.known_as in SIZES else " Its size was not checked: it is not known here."
        taken_for = f"{name} is taken for {options.known_as}, because --as, or its operator, says so."
        notes = (*notes, f"{taken_for}{unchecked}")
    elif name not in CATALOG:
        notes = (
            *notes,
            f"{name} is not in the catalog; assumed: "
            f"{'' if reading.named else _described(config, reading) + ', '}{', '.join(attributes)}, "
            f"at most {max_tokens} tokens, {dtype}.",
        )
    if adapter is not None:
        notes = (*notes, f"{name} is a LoRA adapter, merged into {adapter.base} whenever it is loaded.")
    if reading.head is not None and reading.head.prefix == VALUE_HEAD:
        notes = (*notes, _MAY_BE_A_CRITIC.format(name=name))
    factors = dict(entry.factors if options.factors is None else options.factors)
    if factors:
        check_factors(attributes, factors)
    return LocalSpec(
        name=name,
        folder=str(folder),
        family=family,
        attributes=attributes,
        max_tokens=max_tokens,
        over_length=options.over_length,
        dtype=dtype,
        fingerprint=fingerprint(
            folder,
            family=family,
            attributes=attributes,
            dtype=dtype,
            max_tokens=max_tokens,
            over_length=options.over_length,
            remote_code=remote_code,
            digest_cache=digest_cache,
            read_at=options.read_at,
            add_bos=add_bos,
            adapter=None if adapter is None else adapter.folder,
        ),
        notes=notes,
        known_as=options.known_as,
        adapter=None if adapter is None else str(adapter.folder),
        appended_token_id=_appended_token(name, folders.tokenizer, config, family),
        trained_tokens=entry.trained_tokens,
        languages=entry.languages,
        without_system=entry.without_system,
        unseen=unseen,
        factors=tuple(factors.items()),
        family_named=reading.named,
        read_at=options.read_at,
        add_bos=add_bos,
        remote_code=remote_code,
        device_map=loading.device_map,
        digest_cache=None if digest_cache is None else str(digest_cache),
    )


def _entry(name: str, known_as: str | None) -> Entry:
    """What the catalog knows of the model; ``UserMistake`` where it is to know it by a name that it lacks."""
    if known_as is None:
        return CATALOG.get(name) or Entry(source=name)
    entry = CATALOG.get(known_as)
    if entry is None or entry.source != known_as:
        raise UserMistake(
            f"--as {known_as}: the catalog has no such model{did_you_mean(known_as, CATALOG)}; `assay "
            "models` lists those that it has"
        )
    if entry.service_only:
        raise UserMistake(f"--as {known_as}: that model has no weights that a folder could hold")
    if name in CATALOG:
        raise UserMistake(f"--as {known_as}: model {name} is in the catalog itself; leave it out")
    return replace(entry, source=name)


def _check_weights(name: str, folder: Path) -> None:
    """UserMistake unless the weights are safetensors, all of them, in that folder.

    Which files they are is said by an index, where there is one; transformers would also load a pickle
    that it names.
    """
    convert_them = "convert them with `save_pretrained(..., safe_serialization=True)`"
    if not any(folder.glob(WEIGHTS)):
        raise UserMistake(
            f"model {name}: no *.safetensors in {folder}; weights in other formats (pickles) are never "
            f"loaded: {convert_them}"
        )
    for index in sorted(folder.glob(INDEX)):
        named = read_json_object(index).get("weight_map")
        files = set(map(str, named.values())) if isinstance(named, dict) else {"no file"}
        for file in sorted(files):
            if Path(file).name != file or not fnmatch(file, WEIGHTS):
                raise UserMistake(
                    f"model {name}: {index} names {file[:100]!r} for weights, and none but *.safetensors "
                    f"beside it are loaded: {convert_them}"
                )


def _needs_its_code(config: Mapping[str, Any], family: str) -> bool:
    """Whether transformers has no class of its own for what must be loaded."""
    if not config.get("auto_map") or FAMILIES[family].head_from_weights:
        return False
    import transformers

    return not any(hasattr(transformers, architecture) for architecture in architectures_of(config))


def _code_may_run(name: str, folder: Path, config: Mapping[str, Any], loading: LoadOptions) -> bool:
    """True; ``UserMistake`` unless the operator allows it and a commit says which code that is."""
    if not loading.trust_remote_code:
        raise UserMistake(
            f"model {name}: it runs on Python code of its own repository, which is not trusted. An operator "
            "who has read that code can set ASSAY_TRUST_REMOTE_CODE=true; --revision then says by its commit "
            "hash which code is meant"
        )
    if not (_COMMIT.fullmatch(folder.name) and folder.parent.name == "snapshots"):
        raise UserMistake(
            f"model {name}: its code runs only from a known commit of the Hub: pass --revision with the 40 "
            "digits of the commit hash that was read, not a branch, and no folder"
        )
    places = config["auto_map"].values() if isinstance(config["auto_map"], dict) else (config["auto_map"],)
    elsewhere = [str(place) for place in places if "--" in str(place)]
    if elsewhere:
        raise UserMistake(
            f"model {name}: its code would be fetched from another repository ({elsewhere[0]}), of which no "
            "commit is known; it is not run"
        )
    return True


def _check_tokenizer(name: str, folder: Path, *, pair: bool) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise UserMistake(
            f"model {name}: no tokenizer.json in {folder}; write one with "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(...)`"
        )
    if not pair and (missing := why_no_template(folder)):
        raise UserMistake(
            f"model {name}: {missing}, so a conversation cannot be rendered for it; "
            f"put the one it was trained with into {folder / 'chat_template.jinja'}"
        )


def _appended_token(name: str, folder: Path, config: Mapping[str, Any], family: str) -> int | None:
    """The token after the turn at which the score is read; None where the family appends none."""
    if not FAMILIES[family].appended:
        return None
    if family == APPENDED_CLS:
        return _cls_token(name, folder)
    token_id = config.get("reward_token_id")
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        raise UserMistake(
            f"model {name}: its config.json states no reward_token_id, the token at which its score is read"
        )
    return token_id


def _cls_token(name: str, folder: Path) -> int:
    """The id of the token that its tokenizer's settings call ``cls_token``."""
    text = named_token(folder, "cls_token")
    if not text:
        raise UserMistake(
            f"model {name}: its head is read at a CLS token behind the turn, as Athene's is, and its "
            "tokenizer_config.json names no cls_token"
        )
    added = read_json_object(folder / "tokenizer.json").get("added_tokens")
    ids = [one.get("id") for one in added or () if isinstance(one, dict) and one.get("content") == text]
    if len(ids) != 1 or not isinstance(ids[0], int):
        raise UserMistake(
            f"model {name}: its cls_token {text!r}, at which its head is read, is no added token of "
            "tokenizer.json"
        )
    return int(ids[0])


def _limit(name: str, folder: Path, config: Mapping[str, Any], entry: Entry, max_tokens: int | None) -> int:
    """The longest conversation it is shown: its own limit, or less where less is asked for."""
    own = entry.max_tokens or _max_tokens(folder, config)
    limit = max_tokens or own
    if limit is None:
        raise UserMistake(
            f"model {name}: neither config.json nor tokenizer_config.json states its limit; say with "
            "--max-tokens how many tokens it takes"
        )
    if own is not None and limit > own:
        raise UserMistake(f"--max-tokens {max_tokens}: model {name} takes {own} tokens at most")
    return limit


def _described(config: Mapping[str, Any], reading: Recognised) -> str:
    """``sequence-classification (Qwen2ForSequenceClassification)``, and that there is no padding token."""
    architectures = architectures_of(config) or ["no architecture named"]
    head = f", {reading.head.described}" if reading.head is not None else ""
    padding = "" if config.get("pad_token_id") is not None else ", no padding token (none is needed)"
    return f"{reading.family} ({architectures[0]}{head}{padding})"


def _output_names(config: Mapping[str, Any], reading: Recognised) -> tuple[str, ...]:
    """What config.json calls the outputs of a classification head, in their order.

    One that it does not name is called as transformers calls it. How many a head in the weights has, its
    tensors say.
    """
    names = config.get("id2label") or {}
    count = len(names) or int(config.get("num_labels", 2))
    if reading.head is not None:
        count = reading.head.outputs
    return tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))


def _given_attributes(
    name: str, given: Sequence[str], entry: Entry, reading: Recognised, config: Mapping[str, Any]
) -> tuple[str, ...]:
    """The names that a user gave, checked against the number of outputs."""
    if not given:
        return ()
    for attribute in given:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", attribute) or attribute in _RESERVED:
            raise UserMistake(f"--attributes: {attribute!r} cannot be an attribute's name")
    if len(set(given)) < len(given):
        raise UserMistake(f"--attributes: a name is given twice: {', '.join(given)}")
    if reading.family in _NAMED_OUTPUTS:
        known = entry.attributes or _output_names(config, reading)
    else:
        known = entry.attributes or _attributes(name, reading, config)
    if len(known) != len(given):
        raise UserMistake(
            f"--attributes names {len(given)} outputs ({', '.join(given)}), model {name} has {len(known)}"
        )
    return tuple(given)


def _attributes(name: str, reading: Recognised, config: Mapping[str, Any]) -> tuple[str, ...]:
    if reading.family == GATED_OBJECTIVES and is_armorm(config):
        return (REWARD, *HELPSTEER)
    if reading.family not in _NAMED_OUTPUTS:
        return (REWARD,)
    names = _output_names(config, reading)
    if len(names) == 1:
        return (REWARD,)
    if set(names) - {*ATTRIBUTES, REWARD} or len(set(names)) != len(names):
        raise UserMistake(
            f"model {name}: it has {len(names)} outputs and its config.json "
            f"{'names them ' + ', '.join(names) if config.get('id2label') else 'names none of them'}; "
            f"say with --attributes what each is, in their order, such as {' '.join(HELPSTEER)}"
        )
    return names


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int | None:
    """The limit that its files state: the smallest; None where they state none.

    A model that also takes images states its own within ``text_config``.
    """
    tokenizer_config = folder / "tokenizer_config.json"
    settings = read_json_object(tokenizer_config) if tokenizer_config.is_file() else {}
    stated = settings.get("model_max_length")
    known = [limit for limit in (*_limits_in(config), _as_limit(stated)) if limit is not None]
    if not known and isinstance(config.get("text_config"), dict):
        known = _limits_in(config["text_config"])
    return min(known, default=None)


def _limits_in(config: Mapping[str, Any]) -> list[int]:
    limits = (_as_limit(config.get(key)) for key in ("max_position_embeddings", "n_positions"))
    return [limit for limit in limits if limit is not None]


def _as_limit(value: object) -> int | None:
    """The number as a limit; None where it is none. transformers writes 10**30 for "no limit is known"."""
    return int(value) if isinstance(value, int | float) and 0 < value < 10**9 else None
