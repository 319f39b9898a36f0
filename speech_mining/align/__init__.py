"""Aligning two embedding spaces that share no pairs: a map from one into the other, learned from their shapes.

The door is `alignment.align`. It begins with one of several guesses (`adversarial`, `distribution`, `gromov`, or a
dictionary), refines it (`refinement`) and judges it without pairs (`refinement.criterion`). What is found is a
`spaces.SpaceMap`; `applied` takes matrices on disk through it.
"""
