"""The same embeddings through us and through named peers, each by its own exact path, on the machine at hand.

`contenders` names who takes part and where each is found; `rounds` runs them by turns, each in a process and an
interpreter of its own, where `stopwatch` times one script of `peers`; `agreement` compares what they found;
`report` tells it. The command is `s2s bench`.
"""
