"""``python -m flows.verify``: does this set-up give the scores that it should?"""
