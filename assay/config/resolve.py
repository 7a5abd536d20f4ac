"""An operator's settings → what the library takes."""

from __future__ import annotations

from assay.config.settings import Settings
from assay.rewards.find import KnownModels
from assay.rewards.options import LoadOptions
from assay.score.workers.cluster import ClusterOptions


def models_of(settings: Settings) -> KnownModels:
    """The models that the operator names, and how models are loaded.

    A model that is given several GPUs is spread over them, where the operator names no map.
    """
    spread = "auto" if settings.gpus_per_model > 1 else None
    return KnownModels(
        folders=settings.model_folders,
        families=settings.model_families,
        endpoints=settings.endpoints(),
        loading=LoadOptions(
            trust_remote_code=settings.trust_remote_code,
            hub_token_variable=settings.hub_token_variable,
            device_map=settings.device_map or spread,
        ),
    )


def cluster_of(settings: Settings, workers: int | None) -> ClusterOptions:
    """The operator's workers, as many of them as a run asks for."""
    return ClusterOptions(
        workers=workers,
        scheduler_address=settings.scheduler_address,
        gpus_per_model=settings.gpus_per_model,
    )
