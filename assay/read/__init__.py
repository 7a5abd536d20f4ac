"""Inputs → records: list the files, cut them into shards, turn each row into messages.

``assay.read(…)`` of a notebook is a function (``assay.api.read``), and this package has its name. So the
package can be called, and hands over to that function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import assay


class _Called(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return assay.__getattr__("read")(*arguments, **options)


sys.modules[__name__].__class__ = _Called
