"""An operator's settings → arguments for the library."""

from __future__ import annotations

from assay.config.settings import Settings
from assay.rewards.find import KnownModels
from assay.rewards.options import LoadOptions
from assay.workers.cluster import ClusterOptions


def models_of(settings: Settings) -> KnownModels:
    """The models that the operator names, and how to load models.

    A model with several GPUs is spread over them automatically, unless the operator names a map.
    """
    spread = "auto" if settings.gpus_per_model > 1 else None
    return KnownModels(
        folders=settings.model_folders,
        families=settings.model_families,
        published=settings.model_names,
        endpoints=settings.endpoints(),
        loading=LoadOptions(
            trust_remote_code=settings.trust_remote_code,
            hub_token_variable=settings.hub_token_variable,
            device_map=settings.device_map or spread,
        ),
    )


def cluster_of(settings: Settings, workers: int | None) -> ClusterOptions:
    """The operator's cluster, with as many workers as the run asks for."""
    return ClusterOptions(
        workers=workers,
        scheduler_address=settings.scheduler_address,
        gpus_per_model=settings.gpus_per_model,
    )
