"""What ``verify`` does, without Prefect: find the model, and run the checks that apply to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from assay.config.deployed import golden_places, model_named
from assay.config.resolve import cluster_of, models_of
from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import UserMistake
from assay.core.text import counted
from assay.rewards.find import find_model
from assay.rewards.options import ModelOptions
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.spec import LocalSpec, ModelSpec, ServedSpec
from assay.storage.scratch import torch_in_own_folder
from assay.verify.checks import Check, check_golden, read_golden, record, verify, verify_service
from assay.verify.kept import keep_checks
from assay.workers.cluster import check_options
from flows.command.console import Console


def checked(
    options: VerifyOptions,
    settings: Settings,
    console: Console,
    *,
    deployed: bool = False,
    read_block: ReadBlock | None = None,
) -> list[Check]:
    """The results of the checks, which are kept with the model's scores.

    With ``record`` or ``check``, this does only that.

    In a ``deployed`` run, options name only what the operator allows. ``read_block`` looks up the secret
    block that holds a service's key.
    """
    if options.record is not None and options.check is not None:
        raise UserMistake("--record and --check: one at a time")
    places = golden_places(options.record, options.check, settings, deployed=deployed)
    golden = read_golden(Path(places.check), shown=options.check) if places.check is not None else None
    cluster = cluster_of(settings, options.workers)
    if options.model not in settings.endpoints() and not (options.record or options.check):
        check_options(cluster)
    spec = _model(options, settings, deployed)
    if options.against is not None and not isinstance(spec, ServedSpec):
        raise UserMistake(
            f"--against {options.against}: this option compares a service with a model here, and {spec.name} "
            "is no service"
        )
    for note in spec.notes:
        console.say(note)
    with torch_in_own_folder():
        if places.record is not None:
            turns = record(spec, Path(places.record), shown=options.record, read_block=read_block)
            return [Check("recorded", None, f"{counted(turns, 'turns')} in {options.record}")]
        if golden is not None:
            return check_golden(spec, golden, read_block=read_block, hide_reasoning=options.hide_reasoning)
        if isinstance(spec, ServedSpec):
            local = _counterpart(options, settings, deployed)
            checks = verify_service(spec, local, read_block=read_block, progress=console)
        else:
            checks = verify(spec, cluster=cluster, progress=console, hide_reasoning=options.hide_reasoning)
        try:
            keep_checks(checks, spec.fingerprint, settings.opened_home())
        except OSError as error:
            console.say(f"warning: the results could not be kept for the cards of datasets ({error})")
        return checks


def _counterpart(options: VerifyOptions, settings: Settings, deployed: bool) -> LocalSpec | None:
    """The local model to compare a service with; None where none is named."""
    if options.against is None:
        return None
    chosen = options.of_the_model()
    reading = ModelOptions(
        known_as=chosen.known_as, family=chosen.family, read_at=chosen.read_at, add_bos=chosen.add_bos
    )
    found = _found(options.against, settings, deployed, reading)
    if not isinstance(found, LocalSpec):
        raise UserMistake(f"--against {options.against}: that is a service too; name a model on this machine")
    return found


def _model(options: VerifyOptions, settings: Settings, deployed: bool) -> ModelSpec:
    chosen = options.of_the_model()
    if options.against is not None:
        # The options on how to read a model hold for the model on this machine, not for the service.
        chosen = replace(chosen, known_as=None, family=None, read_at=None, add_bos=None)
    return _found(options.model, settings, deployed, chosen)


def _found(name: str, settings: Settings, deployed: bool, chosen: ModelOptions) -> ModelSpec:
    if deployed:
        model_named(name, settings)
    return find_model(name, models_of(settings), chosen, digest_cache=settings.opened_home().model_digests)
