"""An evaluation's options → what each stage is given, or the user's first mistake. Needs no Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.config.deployed import Places, file_to_read, model_named, places
from assay.config.evaluate_options import EvaluateOptions
from assay.config.resolve import cluster_of, models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.evaluate.evaluation_folder import EvaluationFolder
from assay.evaluate.scores import column_to_compare
from assay.read.formats import Names, parse_names
from assay.read.inventory import check_inputs
from assay.rewards.find import find_model
from assay.rewards.options import ModelOptions
from assay.rewards.spec import ModelSpec
from assay.score.segments import check_store
from assay.storage.addresses import is_remote
from assay.storage.artifacts import check_artifacts
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.regular import why_not_regular
from assay.workers.cluster import ClusterOptions, check_options

STARTER = "starter"


@dataclass(frozen=True, slots=True)
class PreparedEvaluation:
    """What the stages of an evaluation are given."""

    home: Home
    models: Mapping[str, ModelSpec]
    """By the name in the tables."""
    starter: ModelSpec | None
    """The baseline; None where none is wanted."""
    scores: Mapping[str, str]
    """Files of recorded scores by the name in the tables."""
    output: EvaluationFolder
    places: Places
    cluster: ClusterOptions
    names: Names
    results_url: str | None
    """The address at which the operator serves the folders of results; None: there is none."""


def prepare(options: EvaluateOptions, settings: Settings, *, deployed: bool = False) -> PreparedEvaluation:
    """What the stages are given for these options. UserMistake for the first option that cannot work.

    Cheap to repeat. In a ``deployed`` run, options name only what the operator allows.
    """
    options.check()
    if is_remote(options.output):
        raise UserMistake(
            f"--output {options.output}: results are written to a folder of this machine; name one, and copy "
            "it elsewhere once the run has ended"
        )
    names = parse_names(options.map, options.map_role)
    where = places(options.input, options.output, settings, deployed=deployed)
    check_inputs(where.inputs)
    scores = {
        name: _scores_file(file, settings, deployed=deployed) for name, file in options.named_scores().items()
    }
    output = EvaluationFolder(where.output)
    output.check()
    home = settings.opened_home()
    check_store(home)
    check_artifacts(home)
    cluster = cluster_of(settings, options.workers)
    models = _models(options, settings, home, cluster, deployed=deployed)
    for name, model in models.items():
        column_to_compare(model.columns, options.by, name)
    return PreparedEvaluation(
        home=home,
        models=models,
        starter=_starter(options, settings, home, models),
        scores=scores,
        output=output,
        places=where,
        cluster=cluster,
        names=names,
        results_url=settings.served_results(),
    )


def _scores_file(given: str, settings: Settings, *, deployed: bool) -> str:
    path = file_to_read(given, settings, option="scores", what="recorded scores", deployed=deployed)
    try:
        why = why_not_regular(path)
    except OSError as error:
        raise UserMistake(f"--scores {given}: cannot be read: {error.strerror or error}") from error
    if why:
        raise UserMistake(f"--scores {given}: {why}; only regular files are read")
    return path


def _models(
    options: EvaluateOptions, settings: Settings, home: Home, cluster: ClusterOptions, *, deployed: bool
) -> dict[str, ModelSpec]:
    named = options.named_models()
    if any(meant not in settings.endpoints() for meant in named.values()):
        # Check this before a model is fetched from the Hub, which may take an hour.
        check_options(cluster)
    found: dict[str, ModelSpec] = {}
    with full_disk_named(home.root):
        for name, meant in named.items():
            known = model_named(meant, settings) if deployed else meant
            found[name] = find_model(
                known, models_of(settings), options.of_the_model(), digest_cache=home.model_digests
            )
    return found


def _starter(
    options: EvaluateOptions, settings: Settings, home: Home, models: Mapping[str, ModelSpec]
) -> ModelSpec | None:
    """The starter as a baseline, unless it is evaluated itself or nobody wants it."""
    wanted = bool(models) if options.starter_baseline is None else options.starter_baseline
    if not wanted:
        return None
    starter = find_model(STARTER, models_of(settings), ModelOptions(), digest_cache=home.model_digests)
    return None if any(one.fingerprint == starter.fingerprint for one in models.values()) else starter
