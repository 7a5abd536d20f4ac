from loaders.holding import Holds

LOADER = "datasets4"


class TestDatasets4(Holds):
    """See ``Holds``."""
