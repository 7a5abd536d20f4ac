"""The flow of ``assay evaluate``: which reward model deserves trust?"""
