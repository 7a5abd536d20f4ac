"""Reward models. Importable with torch, transformers and numpy alone."""
