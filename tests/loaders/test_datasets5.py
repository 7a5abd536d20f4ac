from loaders.holding import Holds

LOADER = "datasets5"


class TestDatasets5(Holds):
    """See ``Holds``."""
