"""One script a contender, loaded by `speech_mining.benchmark.stopwatch` in the contender's own interpreter.

Nothing here may import `speech_mining` at its top (the peers' environment does not have it); what a script must offer
is `stopwatch.Contender`. The code of a peer is called where it is installed, none of it is kept here.
"""
