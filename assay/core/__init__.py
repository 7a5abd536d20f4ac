"""Words of the house: messages, errors, progress, labels, text. Imports nothing of Assay above it."""
