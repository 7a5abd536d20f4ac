"""The flow of ``assay verify``: does this set-up give the scores that it should?"""
