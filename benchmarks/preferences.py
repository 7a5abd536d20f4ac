"""What rules come to on real data, each held against a plain loop: pairs, trees of answers, long chats.

HH's helpful-base test set holds what a person chose and rejected: do ``agrees``, margins and best-of-two
count what a loop counts? OpenAssistant's trees hold people's ranks of rival answers: how often does the model
order two of them in the same way? ShareGPT's chats are long: does every turn that is cut or masked add up?
The starter rates all of it, so the figures say what the rules do, and not how good a large model is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import peers
import polars as pl

HH = "hh-rlhf/helpful-base-test.jsonl.gz"
OASST = "oasst1/en-validation.messages.jsonl.gz"
_ROLES = {"prompter": "user", "assistant": "assistant"}


class Wrong(Exception):
    """A count is not the loop's."""


def same(what: str, found: object, expected: object) -> None:
    """Nothing, where both are equal."""
    if found != expected:
        raise Wrong(f"{what}: {found}, and the loop finds {expected}")


def curate(data: Path, output: Path, *options: str) -> dict[str, Any]:
    """The manifest of a run."""
    command = [sys.executable, "-m", "flows.curate", "--input", str(data), "--output", str(output), *options]
    subprocess.run(
        [*command, "--export", "messages"],
        check=True,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_bytes())
    return manifest


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines."""
    with path.open("rb") as file:
        yield from map(json.loads, file)


def on_pairs(data: Path, folder: Path) -> tuple[list[tuple[str, str]], dict[str, float]]:
    """Agreement with what people chose, and that rules keep what a loop keeps."""
    curate(data, folder / "all")
    sides: dict[int, dict[str, float]] = defaultdict(dict)
    last: list[tuple[str, float]] = []
    # Every turn is an answer to the messages before it, so the group of a prompt holds inner turns too.
    prompts: dict[str, float] = {}
    for row in lines(folder / "all/messages.jsonl"):
        messages = row["messages"]
        places = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
        for place, scores in zip(places, row["scores"], strict=True):
            prompt, score = json.dumps(messages[:place]), scores["helpfulness"]
            prompts[prompt] = max(score, prompts.get(prompt, score))
        sides[row["source"]["line"]][json.loads(row["extra"])["assay_side"]] = score
        last.append((prompt, score))
    both = [one for one in sides.values() if len(one) == 2]
    agrees = sum(one["chosen"] > one["rejected"] for one in both)
    near = sum(one["chosen"] - one["rejected"] > -0.2 for one in both)
    best = sum(score == prompts[prompt] for prompt, score in last)
    by = ("--by", "helpfulness")
    kept = curate(data, folder / "agrees", "--keep", "agrees", *by)["rows"]["kept"]
    same("--keep agrees", kept, 2 * agrees)
    kept = curate(data, folder / "near", "--keep", "agrees or given_margin > -0.2", *by)["rows"]["kept"]
    same("--keep 'agrees or given_margin > -0.2'", kept, 2 * near)
    kept = curate(data, folder / "best", "--keep", "rank(helpfulness) == 1")["rows"]["kept"]
    same("--keep 'rank(helpfulness) == 1'", kept, best)
    share = agrees / len(both)
    return [
        ("HH helpful-base, rows with both sides", f"{len(both):,}"),
        ("  the model agrees with the person", f"{agrees:,} ({100 * share:.1f}%)"),
        ("  agrees, or misses by less than 0.2", f"{near:,}"),
        ("  kept as the best of its prompt", f"{best:,} of {len(last):,}"),
    ], {"hh_agreement": share}


def on_trees(data: Path, folder: Path) -> tuple[list[tuple[str, str]], dict[str, float]]:
    """Agreement with people's ranks at every branching turn."""
    with gzip.open(data, "rt", encoding="utf-8") as file:
        messages = {row["message_id"]: row for row in map(json.loads, file)}

    def path_of(message: dict[str, Any]) -> str | None:
        """The conversation through a message; None where a message above it is not in the data."""
        path: list[tuple[str, str]] = []
        while True:
            path.append((_ROLES[message["role"]], message["text"]))
            if message["parent_id"] is None:
                return json.dumps(path[::-1])
            if message["parent_id"] not in messages:
                return None
            message = messages[message["parent_id"]]

    # Masked are the turns that are not the best of their rivals, so every other one is of rank 1.
    rule = ("--keep", "rank(helpfulness) == 1", "--on-fail", "mask")
    curate(data, folder / "masked", *rule)
    curate(data, folder / "all")
    scores: dict[str, float] = {}
    places: dict[tuple[int, int, int], str] = {}
    for row in lines(folder / "all/messages.jsonl"):
        path = [(one["role"], one["content"]) for one in row["messages"]]
        turns = [place for place, (role, _) in enumerate(path) if role == "assistant"]
        for turn, place in enumerate(turns):
            key = json.dumps(path[: place + 1])
            scores[key] = row["scores"][turn]["helpfulness"]
            places[row["source"]["line"], row["source"]["part"], turn] = key
    rivals: dict[str | None, list[tuple[int, float]]] = defaultdict(list)
    best: dict[str, float] = {}
    for message in messages.values():
        key = path_of(message) if message["role"] == "assistant" else None
        if key is not None and key in scores:
            above = message["parent_id"]
            best[above] = max(best.get(above, scores[key]), scores[key])
            if message["rank"] is not None:
                rivals[above].append((message["rank"], scores[key]))
    is_best = {
        key
        for message in messages.values()
        if message["role"] == "assistant"
        and (key := path_of(message)) in scores
        and scores[key] == best[message["parent_id"]]
    }
    decided = pl.read_parquet(folder / "masked/decisions-turns.parquet")
    of_kept = decided.filter(pl.col("outcome").is_in(["kept", "masked"]))
    for line, part, turn, outcome in of_kept.select("line", "part", "turn", "outcome").iter_rows():
        same(f"line {line}, turn {turn}", outcome == "kept", places[line, part, turn] in is_best)
    pairs = [
        (one, other)
        for answers in rivals.values()
        for one, other in combinations(answers, 2)
        if one[0] != other[0] and one[1] != other[1]
    ]
    # Rank 0 is people's best.
    right = sum((one[0] < other[0]) == (one[1] > other[1]) for one, other in pairs)
    branching = {above: answers for above, answers in rivals.items() if len(answers) > 1}
    top = sum(
        min(answers)[0] == max(answers, key=lambda answer: answer[1])[0] for answers in branching.values()
    )
    return [
        ("OASST validation, branching turns with ranks", f"{len(branching):,}"),
        (
            "  two rivals ordered as people order them",
            f"{right:,} of {len(pairs):,} ({right / len(pairs):.1%})",
        ),
        ("  the model's best is people's best", f"{top:,} ({top / len(branching):.1%})"),
        ("  turns judged as a loop judges them", f"{of_kept.height:,}"),
    ], {"oasst_pair_agreement": right / len(pairs), "oasst_top_agreement": top / len(branching)}


def on_long_chats(data: Path, folder: Path) -> list[tuple[str, str]]:
    """That every turn is kept, cut, masked, dropped or in quarantine, as a loop finds it."""
    curate(data, folder / "all")
    scores = pl.read_parquet(folder / "all/scores.parquet")
    decisions = pl.read_parquet(folder / "all/decisions.parquet")
    place = ["file", "line", "part"]
    kept_without_rule = decisions.filter(pl.col("outcome") == "kept").select(place)
    scored = scores.join(kept_without_rule, on=place, how="semi")
    # A tenth of the turns fails.
    threshold = round(float(scored["helpfulness"].quantile(0.1) or 0.0), 3)
    fails = scored["helpfulness"] < pl.Series([threshold], dtype=pl.Float32)[0]
    by_record: dict[tuple[object, ...], list[bool]] = defaultdict(list)
    for *record, failing in scored.select(place).with_columns(failing=fails).iter_rows():
        by_record[tuple(record)].append(failing)
    rows = []
    for on_fail, word in (("truncate", "cut"), ("mask", "masked")):
        expected = {"kept": 0, word: 0, "dropped": 0}
        for turns in by_record.values():
            failing = [at for at, one in enumerate(turns) if one]
            if (on_fail == "truncate" and failing[:1] == [0]) or len(failing) == len(turns):
                expected["dropped"] += len(turns)
                continue
            lost = (len(turns) - failing[0] if failing else 0) if on_fail == "truncate" else len(failing)
            expected[word] += lost
            expected["kept"] += len(turns) - lost
        rule = ("--keep", f"helpfulness >= {threshold}", "--on-fail", on_fail)
        manifest = curate(data, folder / on_fail, *rule)
        table = pl.read_parquet(folder / on_fail / "decisions-turns.parquet")
        found = dict(table["outcome"].value_counts().iter_rows())
        quarantined = found.pop("quarantined", 0)
        same(f"--on-fail {on_fail}", found, {name: n for name, n in expected.items() if n})
        same("all turns", table.height, scores.height)
        same("turns of the summary", manifest["selected"]["turns"], {word: expected[word]})
        written = sum(len(row["scores"]) for row in lines(folder / on_fail / "messages.jsonl"))
        same("turns in messages.jsonl", written, found["kept"] + (found[word] if on_fail == "mask" else 0))
        words = ", ".join(f"{name} {n:,}" for name, n in sorted(found.items()))
        rows.append((f"ShareGPT, --on-fail {on_fail}", f"{words}, quarantined {quarantined:,}"))
    return rows


def main() -> None:
    """Measure what there is data for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder with HH's and OASST's files")
    parser.add_argument("--sharegpt", type=Path, help="sharegpt.jsonl")
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["ASSAY_HOME"] = str(folder / "home")
        rows, figures = on_pairs(options.data / HH, folder / "hh")
        more, of_trees = on_trees(options.data / OASST, folder / "oasst")
        rows += more
        if options.sharegpt is not None:
            rows += on_long_chats(options.sharegpt, folder / "sharegpt")
    peers.report("Rules on real data, rated by the starter", rows, figures | of_trees, options.json)


if __name__ == "__main__":
    main()
