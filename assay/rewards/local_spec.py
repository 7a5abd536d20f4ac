"""What is known of a reward model before it is loaded: found by name, by folder, or by its Hub id.

Nothing here imports torch: a run that has every score already opens no model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from assay.core.errors import UserMistake
from assay.core.schema import FLAGS, REWARD, SCORE, STEERLM_ATTRIBUTES, WEIGHTED_REWARD
from assay.core.text import did_you_mean
from assay.rewards import not_read
from assay.rewards.architectures import architectures_of, check_reading, family_of, is_armorm
from assay.rewards.families import (
    FAMILIES,
    GATED_OBJECTIVES,
    PAIR_CLASSIFICATION,
    READ_AT,
    SEQUENCE_CLASSIFICATION,
)
from assay.rewards.fingerprint import CODE, SETTINGS, WEIGHTS, fingerprint
from assay.rewards.probing import unseen_in
from assay.rewards.protocol import ModelSpec
from assay.rewards.published import CATALOG, HELPSTEER, Entry
from assay.rewards.scalar import check_weights
from assay.storage.regular import irregular_in, read_regular

OVER_LENGTH = ("quarantine", "left-truncate")
DTYPES = ("float32", "bfloat16", "float16")

_INDEX = "*.safetensors.index.json"
_DOWNLOADED = (*SETTINGS, WEIGHTS, _INDEX, not_read.ADAPTER_CONFIG)

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


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What only an operator may say about loading models. In no fingerprint: none changes a score."""

    trust_remote_code: bool = False
    """Let code from a model's repository run, where a commit hash says which."""
    hub_token_variable: str | None = None
    """Name of the environment variable that holds the token for gated models."""
    device_map: str | None = None
    """As in transformers; None: one device a process."""


def catalog_model(
    name: str,
    *,
    over_length: str = "quarantine",
    dtype: str | None = None,
    revision: str | None = None,
    attributes: Sequence[str] = (),
    max_tokens: int | None = None,
    weights: Mapping[str, float] | None = None,
    family: str | None = None,
    read_at: str | None = None,
    add_bos: bool | None = None,
    loading: LoadOptions = LoadOptions(),
    digest_cache: Path | None = None,
) -> ModelSpec:
    """The model of that catalog name, folder, or Hub id; ``UserMistake`` where none can be used.

    ``family`` says how it is read where neither the catalog nor its architecture does. ``read_at`` (one of
    ``READ_AT``) and ``add_bos`` say which of two numbers is meant, where transformers' own head, or a card
    that calls ``tokenizer(text)``, gives another one; left out, what the catalog says, or the template's own
    tokens read at the last.
    ``attributes`` names its outputs where the catalog and its config.json do not, in their order;
    ``weights`` make one more number of them. Left out, ``dtype`` is what the model's card loads it in
    (float32 where that is not known) and ``max_tokens`` its own limit. ``digest_cache`` is a JSON file
    in which digests of large weights are kept by size and time.
    """
    if over_length not in OVER_LENGTH:
        raise UserMistake(f"--over-length {over_length}: choose one of {', '.join(OVER_LENGTH)}")
    entry = CATALOG.get(name) or Entry(source=name)
    if entry.service_only:
        raise UserMistake(
            f"model {name} has no weights that can be loaded here; it is used through a service: configure "
            "an endpoint that serves it"
        )
    dtype = dtype or entry.dtype or "float32"
    if dtype not in DTYPES:
        raise UserMistake(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}")
    if read_at is not None and read_at not in READ_AT:
        raise UserMistake(f"--read-at {read_at}: choose one of {', '.join(READ_AT)}")
    folder = _folder_of(name, entry, revision, loading)
    config = _read_json(folder / "config.json")
    _check_weights(name, folder)
    family, family_named = family_of(name, folder, config, entry.family, family)
    not_read.check_head(name, folder, family)
    check_reading(name, family, read_at, add_bos)
    if add_bos is None and entry.add_bos:
        add_bos = True
    _check_tokenizer(name, folder, pair=FAMILIES[family].pair)
    # An encoder is shown question and answer, and whatever stands before, without a template.
    unseen = () if FAMILIES[family].pair else unseen_in(name, folder)
    given = _given_attributes(name, attributes, entry, family, config)
    rated = given or entry.attributes or _attributes(name, family, config)
    limit = _limit(name, folder, config, entry, max_tokens)
    remote_code = _needs_its_code(config, family) and _code_may_run(name, folder, config, loading)
    notes = entry.notes
    if family_named:
        notes = (*notes, f"{name} is read as {family} because --family, or its operator, says so.")
    if name not in CATALOG:
        notes = (
            *notes,
            f"{name} is not in the catalog; assumed: "
            f"{'' if family_named else _described(config, family) + ', '}{', '.join(rated)}, "
            f"at most {limit} tokens, {dtype}.",
        )
    chosen_weights = dict(entry.weights if weights is None else weights)
    if chosen_weights:
        check_weights(rated, chosen_weights)
    return ModelSpec(
        name=name,
        folder=str(folder),
        family=family,
        attributes=rated,
        max_tokens=limit,
        over_length=over_length,
        dtype=dtype,
        opener="assay.rewards.local.model:open_model",
        fingerprint=fingerprint(
            folder,
            family=family,
            attributes=rated,
            dtype=dtype,
            max_tokens=limit,
            over_length=over_length,
            remote_code=remote_code,
            digest_cache=digest_cache,
            read_at=read_at,
            add_bos=add_bos,
        ),
        notes=notes,
        appended_token_id=_appended_token(name, config) if FAMILIES[family].appended else None,
        trained_tokens=entry.trained_tokens,
        languages=entry.languages,
        unseen=unseen,
        weights=tuple(chosen_weights.items()),
        family_named=family_named,
        read_at=read_at,
        add_bos=add_bos,
        remote_code=remote_code,
        device_map=loading.device_map,
        digest_cache=None if digest_cache is None else str(digest_cache),
    )


def _folder_of(name: str, entry: Entry, revision: str | None, loading: LoadOptions) -> Path:
    folder = Path(entry.source).expanduser()
    if folder.is_dir():
        if found := irregular_in(folder):
            raise UserMistake(f"model {name}: {found}")
        not_read.check_is_no_adapter(name, folder)
        if not (folder / "config.json").exists():
            raise UserMistake(f"model {name}: {folder} has no config.json, so it is not a model's folder")
        folder = folder.resolve()
        if revision is not None and folder.name != revision:
            raise UserMistake(
                f"model {name}: --revision {revision} is for models on the Hub; {folder} holds one revision"
            )
        return folder
    looks_like_hub_id = entry.source.count("/") == 1 and not entry.source.startswith((".", "/", "~"))
    if looks_like_hub_id:
        folder = _from_hub(name, entry.source, revision, loading)
        not_read.check_is_no_adapter(name, folder)
        return folder
    raise UserMistake(_unknown(name))


def _unknown(name: str) -> str:
    """Why ``name`` is no model, where it cannot be one of the Hub's."""
    if "/" in name or name.startswith((".", "~")):
        what = (
            "this is a file, not a folder" if Path(name).expanduser().exists() else "there is no such folder"
        )
        return f"model {name}: {what}; {_SEE}"
    return f"unknown model {name!r}{did_you_mean(name, CATALOG)} ({_SEE})"


_SEE = "docs/models.md lists what --model takes"


def _from_hub(name: str, hub_id: str, revision: str | None, loading: LoadOptions) -> Path:
    """The local copy of a model on the Hub, fetched if it is not there and the Hub can be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = None
    if loading.hub_token_variable is not None:
        token = os.environ.get(loading.hub_token_variable)
        if not token:
            raise UserMistake(
                f"ASSAY_HUB_TOKEN_VARIABLE names {loading.hub_token_variable}, which is not set; put the "
                "Hub's token into it"
            )
    patterns = [*_DOWNLOADED, CODE] if loading.trust_remote_code else list(_DOWNLOADED)
    try:
        return Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UserMistake(
            f"model {name}: {hub_id} is gated: accept its terms at https://huggingface.co/{hub_id} "
            "with your account, put a token of it into an environment variable, and name that variable in "
            "ASSAY_HUB_TOKEN_VARIABLE"
        ) from error
    except RevisionNotFoundError as error:
        raise UserMistake(f"model {name}: {hub_id} has no revision {revision!r} on the Hub") from error
    except RepositoryNotFoundError as error:
        raise UserMistake(
            f"model {name}: the Hub shows no {hub_id}, and there is no such folder"
            f"{did_you_mean(name, CATALOG)} ({_SEE}; for a private one, name the environment variable that "
            "holds a token in ASSAY_HUB_TOKEN_VARIABLE)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise UserMistake(
            f"model {name}: the Hub cannot be reached from here, and {hub_id} is neither in its local cache "
            f"nor a folder{did_you_mean(name, CATALOG)} ({_SEE})"
        ) from error
    except HfHubHTTPError as error:
        raise UserMistake(f"model {name}: the Hub says no to {hub_id}: {error}") from error


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
    for index in sorted(folder.glob(_INDEX)):
        named = _read_json(index).get("weight_map")
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
    if not pair and not _has_chat_template(folder):
        raise UserMistake(
            f"model {name}: no chat template, so a conversation cannot be rendered for it; "
            f"put the one it was trained with into {folder / 'chat_template.jinja'}"
        )


def _appended_token(name: str, config: Mapping[str, Any]) -> int:
    token_id = config.get("reward_token_id")
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        raise UserMistake(
            f"model {name}: its config.json states no reward_token_id, the token at which its score is read"
        )
    return token_id


def _limit(name: str, folder: Path, config: Mapping[str, Any], entry: Entry, max_tokens: int | None) -> int:
    """The longest conversation it is shown: its own limit, or less where less is asked for."""
    own = entry.max_tokens or _max_tokens(name, folder, config)
    if max_tokens is None:
        return own
    if max_tokens > own:
        raise UserMistake(f"--max-tokens {max_tokens}: model {name} takes {own} tokens at most")
    return max_tokens


def _described(config: Mapping[str, Any], family: str) -> str:
    """``sequence-classification (Qwen2ForSequenceClassification)``, and that there is no padding token."""
    architectures = architectures_of(config) or ["no architecture named"]
    padding = "" if config.get("pad_token_id") is not None else ", no padding token (none is needed)"
    return f"{family} ({architectures[0]}{padding})"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserMistake(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserMistake(f"{path}: a JSON object is expected")
    return content


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    tokenizer_config = folder / "tokenizer_config.json"
    return tokenizer_config.is_file() and bool(_read_json(tokenizer_config).get("chat_template"))


def _output_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What config.json calls the outputs of a classification head, in their order.

    One that it does not name is called as transformers calls it.
    """
    names = config.get("id2label") or {}
    count = len(names) or int(config.get("num_labels", 2))
    return tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))


def _given_attributes(
    name: str, given: Sequence[str], entry: Entry, family: str, config: Mapping[str, Any]
) -> tuple[str, ...]:
    """The names that a user gave, checked against the number of outputs."""
    if not given:
        return ()
    for attribute in given:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", attribute) or attribute in _RESERVED:
            raise UserMistake(f"--attributes: {attribute!r} cannot be an attribute's name")
    if len(set(given)) < len(given):
        raise UserMistake(f"--attributes: a name is given twice: {', '.join(given)}")
    known = entry.attributes or (
        _output_names(config) if "classification" in family else _attributes(name, family, config)
    )
    if len(known) != len(given):
        raise UserMistake(
            f"--attributes names {len(given)} outputs ({', '.join(given)}), model {name} has {len(known)}"
        )
    return tuple(given)


def _attributes(name: str, family: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    if family == GATED_OBJECTIVES and is_armorm(config):
        return (REWARD, *HELPSTEER)
    if family not in (SEQUENCE_CLASSIFICATION, PAIR_CLASSIFICATION):
        return (REWARD,)
    names = _output_names(config)
    if len(names) == 1:
        return (REWARD,)
    if set(names) - {*STEERLM_ATTRIBUTES, REWARD} or len(set(names)) != len(names):
        raise UserMistake(
            f"model {name}: it has {len(names)} outputs and its config.json "
            f"{'names them ' + ', '.join(names) if config.get('id2label') else 'names none of them'}; "
            f"say with --attributes what each is, in their order, such as {' '.join(HELPSTEER)}"
        )
    return names


def _max_tokens(name: str, folder: Path, config: Mapping[str, Any]) -> int:
    limits = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        limits.append(_read_json(tokenizer_config).get("model_max_length"))
    # transformers writes 10**30 for "no limit is known".
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9]
    if not known:
        raise UserMistake(f"model {name}: neither config.json nor tokenizer_config.json states its limit")
    return min(known)
