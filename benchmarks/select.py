"""What another rule costs on a million records; all of it is in ``selecting.py``.

Python has a module ``select`` of its own, and what is in the folder of a script is found first. So whoever
imports this file by that name gets Python's module.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

if __name__ == "__main__":
    from selecting import main

    main()
else:
    _here = Path(__file__).resolve().parent
    _spec = PathFinder.find_spec(__name__, [one for one in sys.path if Path(one).resolve() != _here])
    if _spec is None or _spec.loader is None:
        raise ImportError(f"Python's own module {__name__} is not found")
    sys.modules[__name__] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
