"""A closed miniature world in four languages: its words, its sentences, its books and the voices that read them.

What is told, and how it would be catalogued, belongs here; recordings and files are `demo.make_library`.
"""
