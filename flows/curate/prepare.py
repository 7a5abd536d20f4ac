"""A run's options → what each stage is given, or the user's first mistake. Needs no Prefect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from assay.config.deployed import Places, model_named, places, results_place
from assay.config.options import RunOptions
from assay.config.resolve import cluster_of, models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.export import PAIR_EXPORTS, PairChoice, check_exports, check_split, default_exports
from assay.export.folder import OutputFolder
from assay.read.formats import Names, parse_names
from assay.read.inventory import check_inputs
from assay.read.releases import next_release
from assay.report.build import Before
from assay.rewards.find import find_model
from assay.rewards.named import NamedModel
from assay.score.segments import check_store
from assay.score.ways import model_bytes
from assay.select.rules import Rules, rules_in
from assay.select.selection import Selection, chosen_order, parse_selection, parsed_group
from assay.select.vocabulary import tokenizers_of, vocabulary_of, why_no_alias
from assay.storage.addresses import is_remote
from assay.storage.artifacts import check_artifacts
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.hub_push import HubDataset, hub_dataset
from assay.storage.run_manifest import RUN_MANIFEST, run_manifest_in
from assay.workers.cluster import ClusterOptions, check_options, scores_on_gpus
from assay.workers.of_run import RunWorkers


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stages of a run are given."""

    settings: Settings
    home: Home
    models: tuple[NamedModel, ...]
    """At least one; each of several has a name of its own."""
    rules: Rules
    desirable: Rules
    """Which answers are good ones, for KTO; without rules only people say it."""
    selection: Selection
    output: OutputFolder
    places: Places
    cluster: ClusterOptions
    names: Names
    """What the user maps."""
    exports: tuple[str, ...]
    """The files to write, by the names of their exports."""
    hub: HubDataset | None
    """The dataset on the Hub that they are pushed to."""
    before: Before
    """The results that the page compares this run's with, if there are any."""

    def workers(self) -> RunWorkers:
        """The workers of the run, of which none has started."""
        # Workers on cores hold no model where GPUs score.
        on_gpus = scores_on_gpus(self.cluster)
        largest = 0 if on_gpus else max(model_bytes(one.spec) for one in self.models)
        reach_files = self.home.score_store is None or self.home.is_in_buckets
        return RunWorkers(replace(self.cluster, model_bytes=largest), reach_files=reach_files)

    @property
    def finds_languages(self) -> bool:
        """Whether the languages of records are found: a model names its own."""
        return any(one.spec.languages for one in self.models)


def prepare(
    options: RunOptions, settings: Settings, *, deployed: bool = False, day: date | None = None
) -> Prepared:
    """What the stages are given for these options. UserMistake for the first option that cannot work.

    Cheap to repeat. In a ``deployed`` run, options name only what the operator allows. ``day``: the day of a
    release; None: today, in UTC.
    """
    if is_remote(options.output):
        raise UserMistake(
            f"--output {options.output}: results are written to a folder of this machine; name one, and copy "
            "it elsewhere once the run has ended"
        )
    names = parse_names(options.map, options.map_role)
    # Before a model is fetched from the Hub, which may take an hour.
    check_split(options.export if options.stop_after is None else (), options.split_choice())
    options.shard_bytes()
    parsed_group(options.group)
    where = places(options.input, options.output, settings, deployed=deployed)
    check_inputs(where.inputs)
    home = settings.opened_home()
    check_store(home)
    check_artifacts(home)
    cluster = cluster_of(settings, options.workers)
    models = _models(options, settings, home, cluster, deployed=deployed)
    vocabulary = vocabulary_of(models)
    exports = tuple(options.export) or default_exports(vocabulary.attributes)
    _check_stop(options)
    vocabulary = replace(vocabulary, order=chosen_order(vocabulary, options.by))
    rules = rules_in(options.keep, vocabulary, allow_cross_prompt=options.allow_cross_prompt)
    desirable = rules_in(options.desirable, vocabulary, allow_cross_prompt=options.allow_cross_prompt)
    selection = parse_selection(
        vocabulary,
        group=options.group,
        on_fail=options.on_fail,
        target=options.target,
        by=options.by,
        per=options.per,
        quota=options.quota,
        rules=Rules((*rules.rules, *desirable.rules)),
        dedup=options.dedup,
        dedup_over=options.dedup_over,
        near=options.near,
        decontaminate=_local(options.decontaminate, options.output, settings, deployed=deployed),
        allow_cross_prompt=options.allow_cross_prompt,
        orders_files=vocabulary.has_several_models or not PAIR_EXPORTS.keys().isdisjoint(exports),
    )
    selection = replace(selection, tokenizers=tokenizers_of(models))
    if options.stop_after is None:
        check_exports(exports, vocabulary.attributes, are_ordered=options.by is not None)
        _check_desirable(options, exports)
        _check_pairs(options, exports)
    output = OutputFolder(_release(where.output, options, day) if options.release else where.output)
    output.check()
    hub = _hub_dataset(options, settings, deployed=deployed)
    before = _before(options, output, settings, deployed=deployed)
    return Prepared(
        settings,
        home,
        models,
        rules,
        desirable,
        selection,
        output,
        where,
        cluster,
        names,
        exports,
        hub,
        before,
    )


def _models(
    options: RunOptions, settings: Settings, home: Home, cluster: ClusterOptions, *, deployed: bool
) -> tuple[NamedModel, ...]:
    """The models, found; UserMistake for the first that cannot be used."""
    chosen = options.chosen_models()
    names = [model_named(one.name, settings) if deployed else one.name for one in chosen]
    if options.stop_after != "convert" and not set(names) <= settings.endpoints().keys():
        # Check this before a model is fetched from the Hub, which may take an hour.
        check_options(cluster)
    models = []
    for one, name in zip(chosen, names, strict=True):
        if one.alias is not None and (why := why_no_alias(one.alias)):
            raise UserMistake(f"--model {one.alias}={one.name}: {why}; call the model by another name")
        with full_disk_named(home.root):
            spec = find_model(name, models_of(settings), one.options, digest_cache=home.model_digests)
        models.append(NamedModel(one.alias, spec))
    for model in models:
        if clash := next((one for one in models if model.alias in one.spec.columns), None):
            raise UserMistake(
                f"--model {model.alias}=…: {clash.spec.name} rates {model.alias}; call the model by another "
                "name"
            )
    return tuple(models)


def _release(folder: str, options: RunOptions, day: date | None) -> Path:
    if options.limit is not None or options.stop_after is not None:
        raise UserMistake("--release: is of all that is new; leave out --limit and --stop-after")
    return next_release(Path(folder), day or datetime.now(UTC).date())


def _local(files: list[str], output: str, settings: Settings, *, deployed: bool) -> list[str]:
    """Files that the run compares with, where the operator lets it read."""
    remote = next((file for file in files if is_remote(file)), None)
    if remote is not None:
        raise UserMistake(f"--decontaminate {remote}: is read from this machine; copy it here first")
    return places(files, output, settings, deployed=deployed).inputs if files else []


def _before(options: RunOptions, output: OutputFolder, settings: Settings, *, deployed: bool) -> Before:
    """What the page compares with: the results that ``--compare`` names, or those in the output folder."""
    if options.compare is None:
        return Before(output.path, options.output)
    if not options.report:
        raise UserMistake(
            f"--compare {options.compare}: the report shows the comparison; leave out --no-report"
        )
    folder = Path(results_place(options.compare, "compare", settings, deployed=deployed))
    if run_manifest_in(folder) is None:
        raise UserMistake(f"--compare {options.compare}: holds no {RUN_MANIFEST} of a run; name its results")
    return Before(folder, options.compare)


def _check_stop(options: RunOptions) -> None:
    """Refuse rules and exports in a run that stops before they are used."""
    if options.stop_after is None:
        return
    unused = [f"--keep {rule!r}" for rule in options.keep]
    unused += [f"--desirable {rule!r}" for rule in options.desirable]
    unused += [] if options.target is None else [f"--target {options.target}"]
    # steerlm alone was the default once, and may stand in a config file.
    if options.export not in ([], ["steerlm"]):
        unused.append(f"--export {' '.join(options.export)}")
    if options.preview:
        unused.append("--preview")
    if unused:
        raise UserMistake(
            f"--stop-after {options.stop_after} stops before {' and '.join(unused)} would be used. Leave out "
            "the one or the other."
        )


def _check_desirable(options: RunOptions, exports: tuple[str, ...]) -> None:
    """Refuse a rule on verdicts where no export holds any."""
    if options.desirable and not any(name.endswith("-kto") for name in exports):
        raise UserMistake(
            "--desirable says which answers are good ones for KTO, and no export of this run holds such "
            "verdicts. Add one, such as --export trl-kto; `assay exports` lists them."
        )


def _check_pairs(options: RunOptions, exports: tuple[str, ...]) -> None:
    """Refuse a choice of pairs where no export holds any."""
    if options.pair_choice() == PairChoice() or not PAIR_EXPORTS.keys().isdisjoint(exports):
        return
    raise UserMistake(
        "--pairs, --min-margin, --max-length-ratio and --pairs-per-prompt choose pairs, and no export of "
        "this run holds pairs. Add one, such as --export trl-preference; `assay exports` lists them."
    )


def _hub_dataset(options: RunOptions, settings: Settings, *, deployed: bool) -> HubDataset | None:
    """The dataset to push to, which its token may write; None where nothing is pushed."""
    if options.push_to_hub is None:
        if options.public:
            raise UserMistake("--public: nothing is pushed. Name a dataset with --push-to-hub OWNER/NAME")
        return None
    if deployed or options.stop_after is not None or options.dry_run:
        why = "a deployment's run pushes nothing" if deployed else "this run writes no exports"
        raise UserMistake(f"--push-to-hub {options.push_to_hub}: {why}; leave it out")
    dataset = hub_dataset(options.push_to_hub, settings.hub_token_variable, private=not options.public)
    dataset.check()
    return dataset
