"""``README.md``: the results as a dataset that people and the Hub can read.

Its front matter names the data files, so that ``datasets.load_dataset(FOLDER)`` loads these and nothing else
(huggingface.co/docs/hub/datasets-manual-configuration). Equal results have an equal card: it has no date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

import yaml

from assay.core.text import counted, printable
from assay.export.contract import Json
from assay.export.files import Exported
from assay.export.numbered import all_numbered
from assay.storage.manifests import Converted, Counts, Scored
from assay.storage.run_manifest import RunManifest, Written

CARD = "README.md"

# huggingface.co/docs/hub/datasets-cards: a size_categories is one of these.
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_BEYOND = "n>10M"

#: How a trainer is shown an export, as docs/trainers.md has it; ``{file}`` is the export's file.
_SNIPPETS = {
    "trl-sft": "SFTTrainer(model=MODEL, train_dataset=data)",
    "trl-preference": "DPOTrainer(model=MODEL, train_dataset=data, processing_class=tokenizer)",
    "trl-reward": "RewardTrainer(model=MODEL, train_dataset=data)",
    "trl-kto": "KTOTrainer(model=MODEL, train_dataset=data, processing_class=tokenizer)",
    **{
        f"axolotl-{kind}": f"cd FOLDER && axolotl train axolotl/{kind}.yaml"
        for kind in ("sft", "preference", "kto")
    },
    **{
        f"llamafactory-{kind}": "dataset_dir: FOLDER/llamafactory (dataset_info.json names the data sets)"
        for kind in ("sft", "preference", "kto")
    },
    "nemo-rl-sft": "dataset_name: openai_format, train_data_path: FOLDER/{file}, "
    "use_preserving_dataset: true",
    "nemo-rl-preference": "dataset_name: PreferenceDataset, train_data_path: FOLDER/{file}",
    "openrlhf-preference": "python -m openrlhf.cli.train_rm --data.dataset FOLDER/{file} "
    "--data.prompt_key prompt --data.apply_chat_template",
    "verl-sft": "torchrun --nproc_per_node=1 -m verl.trainer.sft_trainer data.train_files=FOLDER/{file} "
    "data.messages_key=messages data.max_length=8192",
    "swift-sft": "swift sft --dataset FOLDER/{file}",
    "swift-preference": "swift rlhf --dataset FOLDER/{file}",
    "openai": 'upload FOLDER/{file} with purpose="fine-tune"',
}


@dataclass(frozen=True, slots=True)
class AboutModel:
    """What a card says of a model."""

    alias: str | None
    """What the run calls it; None where it has one model without a name of its own."""
    name: str
    fingerprint: str
    revision: str | None = None
    """Branch, tag or commit, where one was named."""
    license: str | None = None
    """Where its catalog entry says it."""


@dataclass(frozen=True, slots=True)
class AboutRun:
    """What a card says of a run besides its results."""

    models: tuple[AboutModel, ...]
    rules: tuple[str, ...] = ()
    """What was kept: rules, and other options that choose."""
    verified: tuple[str, ...] = ()
    """Sentences on what was measured of the model in this set-up."""
    finds_languages: bool = False
    """Whether the run finds the languages of its records, as it does for a model that names its own."""


#: The columns of a config, each with its name and its type.
Features: TypeAlias = "Sequence[Mapping[str, Json]]"


def card(
    about: AboutRun,
    converted: Converted,
    scored: Scored,
    counts: Counts,
    exported: Exported,
    features: Mapping[str, Features],
    languages: Sequence[str] = (),
    sides_by: str | None = None,
) -> bytes:
    """The card of these results, in Markdown with a front matter in YAML. ``counts`` are of all records.

    ``features`` are the columns of exports, by name, where ``datasets`` could not find them out.
    ``languages`` are those of the records; none where they are not known. ``sides_by`` is the field that
    sides go by; None where nothing is split, or by prompt.
    """
    written = exported.exports
    typed = [
        {"config_name": name, "features": features[name]}
        for name in _loaded_by_name(written)
        if name in features
    ]
    front = {
        "configs": list(_configs(written)),
        **({"dataset_info": typed} if typed else {}),
        **({"language": list(languages)} if languages else {}),
        "license": "unknown",
        "size_categories": [_size(max((one.rows for one in written.values()), default=0))],
        "task_categories": ["text-generation"],
        "tags": ["assay", "reward-model", *sorted({name.partition("-")[0] for name in written})],
    }
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    body = "\n".join(_body(about, converted, scored, counts, exported, sides_by))
    return f"---\n{head}---\n\n{body}\n".encode()


def for_others(manifest: RunManifest) -> list[str]:
    """The result files that make the dataset: the card, the exports' files and what stands beside them.

    Not what was dropped or quarantined, nor what says where files lie on somebody's machine.
    """
    data = {file for one in manifest.exports.values() for files in one.by_side.values() for file in files}
    return sorted(name for name in manifest.files if name in data or name == CARD or "/" in name)


def _configs(written: Mapping[str, Written]) -> Iterator[dict[str, object]]:
    """Yield an entry an export. The first is what is loaded where none is named.

    All have its kind of file: ``datasets`` reads every config of a folder with one builder, and dies on a
    table where that is for lines.
    """
    for number, (name, one) in enumerate(_loaded_by_name(written).items()):
        yield {
            "config_name": name,
            **({"default": True} if number == 0 else {}),
            # The Hub knows a validation split by this name.
            "data_files": [
                {
                    "split": "validation" if side == "val" else side,
                    "path": files[0] if len(files) == 1 else list(files),
                }
                for side, files in one.by_side.items()
            ],
        }


def _loaded_by_name(written: Mapping[str, Written]) -> dict[str, Written]:
    kinds = [PurePath(one.file).suffix for one in written.values()]
    return {name: one for (name, one), kind in zip(written.items(), kinds, strict=True) if kind == kinds[0]}


def _size(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), _BEYOND)


def _body(
    about: AboutRun,
    converted: Converted,
    scored: Scored,
    counts: Counts,
    exported: Exported,
    sides_by: str | None,
) -> Iterator[str]:
    raters = " and ".join(_code(_base(model.name)) for model in about.models)
    yield f"# Conversations rated by {'a reward model' if len(about.models) == 1 else 'reward models'}\n"
    yield (
        f"{counted(counts.ok, 'records')} of {counts.read:,}, kept by what {raters} says "
        "of each assistant turn. Made with Assay. The licence of the sources is that of the data: put it "
        "into the front matter before you publish this.\n"
    )
    yield "## Sources\n"
    yield "| file | format | bytes | BLAKE2b-128 |\n|---|---|--:|---|"
    for file in converted.inputs:
        yield f"| {_code(_base(file.path))} | {file.format} | {file.size:,} | `{file.digest}` |"
    yield ""
    if not converted.complete:
        yield "An input is cut short or damaged: `manifest.json` says which.\n"
    yield "## Model\n" if len(about.models) == 1 else "## Models\n"
    for model in about.models:
        alias = f"{_code(model.alias)}: " if model.alias is not None else ""
        revision = f", revision {_code(model.revision)}" if model.revision else ""
        license = f", licence {_code(model.license)}" if model.license else ""
        yield f"{alias}{_code(_base(model.name))}{revision}{license}; fingerprint `{model.fingerprint}`.\n"
    it = "It rates" if len(about.models) == 1 else "They rate"
    yield f"{it} {', '.join(map(_code, scored.attributes))}. Scores are raw.\n"
    yield from (f"- {_text(one)}" for one in about.verified)
    if about.verified:
        yield ""
    yield "## What was kept\n"
    if about.rules:
        yield from (f"- {_code(rule)}" for rule in about.rules)
    else:
        yield "No rule: every record whose turns have scores."
    yield "\n| | records |\n|---|--:|"
    yield f"| read | {counts.read:,} |\n| kept | {counts.ok:,} |"
    for word, reasons in (("dropped", counts.dropped), ("quarantined", counts.quarantined)):
        for reason, count in reasons.items():
            yield f"| {word}: {_code(reason)} | {count:,} |"
    yield ""
    yield from _pairs(exported)
    yield "## Files\n"
    yield "| config | file | rows | left out |\n|---|---|--:|---|"
    for name, one in exported.exports.items():
        files = ", ".join(map(_named, one.by_side.values()))
        left_out = ", ".join(f"{reason} {count:,}" for reason, count in one.left_out.items()) or "–"
        yield f"| `{name}` | {files} | {one.rows:,} | {left_out} |"
    yield "\nWhat a file leaves out its trainer would drop, alter or die on.\n"
    if sides_by is not None:
        yield (
            f"The files are divided by {_code(sides_by)}: records with one value of it are on one side. A "
            "record without a value goes by its messages through the first of a user.\n"
        )
    yield "## How to load it\n"
    yield "`FOLDER` is this folder; `load_dataset` also takes its name on the Hub.\n"
    yield "```python\nfrom datasets import load_dataset\n"
    named = _loaded_by_name(exported.exports)
    for name, one in exported.exports.items():
        arguments = f'FOLDER, "{name}"'
        if name not in named:
            kind = "parquet" if one.file.endswith(".parquet") else "json"
            arguments = f'"{kind}", data_files=f"{{FOLDER}}/{all_numbered(one.file)}"'
        yield f'data = load_dataset({arguments}, split="train")'
        snippet = _SNIPPETS.get(name, "")
        # Of several files no snippet names all.
        if snippet and not ("{file}" in snippet and one.shards):
            yield f"# {snippet.replace('{file}', one.file)}"
    yield "```"


def _named(files: Sequence[str]) -> str:
    """``a``, or ``a`` to ``z`` where there are several."""
    return f"`{files[0]}`" if len(files) == 1 else f"`{files[0]}` to `{files[-1]}`"


def _pairs(exported: Exported) -> Iterator[str]:
    made = exported.pairs
    if made is None:
        return
    yield "## Pairs\n"
    yield f"{counted(made.pairs, 'pairs')} of the answers to {counted(made.prompts, 'prompts')}."
    if made.margins:
        margins = ", ".join(f"{percent}%: {margin:.3g}" for percent, margin in made.margins.items())
        yield f"Their margins by percent of the pairs: {margins}."
    if made.chosen_longer is not None:
        yield f"The chosen answer is the longer one in {100 * made.chosen_longer:.1f}% of them."
    yield ""


def _base(path: str) -> str:
    """The last part of a path: where files lay on somebody's machine is nobody else's concern."""
    return path if path.count("/") == 1 and not path.startswith(("/", "./", "~")) else PurePath(path).name


_TICKS = re.compile("`+")


def _code(text: str) -> str:
    """The text as code, which no Markdown in it can leave."""
    shown = printable(text).replace("|", "\\|")
    ticks = "`" * (1 + max((len(found[0]) for found in _TICKS.finditer(shown)), default=0))
    space = " " if "`" in shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def _text(text: str) -> str:
    return printable(text).replace("<", "&lt;").replace("[", "\\[")
