"""Does this set-up give the scores that it should?"""
