"""A closed miniature world in four languages: its words, its sentences and the voices that speak them.

Only what makes text and speech belongs here. Which sentences become audiobooks is decided by `demo.make_library`.
"""
