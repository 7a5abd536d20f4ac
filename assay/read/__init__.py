"""Inputs → records: list the files, cut them into shards, turn each row into messages."""
