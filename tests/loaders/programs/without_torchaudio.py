"""Import this before LLaMA-Factory, which imports torchaudio: its wheel wants CUDA's libraries.

Nothing here plays a sound.
"""

import sys
import types

sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = types.SimpleNamespace(name="torchaudio", loader=None)  # type: ignore[assignment]
