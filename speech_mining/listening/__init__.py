"""Pairs, heard and judged by people: what is heard in which order, what was said of it, and what follows from that.

What belongs here is the listening room and its statistics. The report, which only shows, is `speech_mining.report`.
"""
