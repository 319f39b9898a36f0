"""A first pairing by optimal transport between the two tables of similarities.

Alvarez-Melis & Jaakkola, "Gromov-Wasserstein alignment of word embedding spaces", 2018. Beside the tables the plan may
weigh how alike the rows' own sorted similarities are (`distribution.profile`): the fused distance of Vayer, Chapel,
Flamary, Tavenard & Courty, "Fused Gromov-Wasserstein distance for structured objects", 2020. The solver is POT's
(Flamary et al., "POT: Python Optimal Transport", 2021).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.align.distribution import profile
from speech_mining.align.refinement import Clock, Pairing, Sides, unlimited
from speech_mining.align.spaces import Matrix

STEPS_BETWEEN_CLOCKS = 5

Plan = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transport:
    """How the plan is found."""

    frequent: int = 1000
    """Rows of each side that take part: time grows with the cube, memory with the square."""
    structure: tuple[float, float] = (0.3, 0.9)
    """Between these the weight of the two tables against the rows' own profiles is drawn, so that restarts differ.

    On 500 clustered rows with noise of 0.2 the first pairing had 80 % right with 0.1, 93 % with 0.5, 94 % with 0.8 and
    1 % with 1, plain Gromov-Wasserstein: from the uniform plan its steps end where they should not. Entropy in place of
    exact steps found nothing where these did.
    """
    steps: int = 50
    """Of conditional gradient, at most."""


def by_transport(sides: Sides, how: Transport, random: np.random.Generator, out_of_time: Clock = unlimited) -> Pairing:
    """Pair rows by the plan that best carries one side's similarities into the other's.

    Args:
        sides: the rows.
        how: its size and weights.
        random: of the weight.
        out_of_time: asked every few steps; the plan so far is the answer.
    """
    rows = [side[: how.frequent] for side in sides]
    tables = [_distances(side) for side in rows]
    apart = _profiles_apart(rows)
    structure = float(random.uniform(*how.structure))
    plan = np.full((len(rows[0]), len(rows[1])), 1 / len(rows[0]) / len(rows[1]))
    for _ in range(0, how.steps, STEPS_BETWEEN_CLOCKS):
        before, plan = plan, _carried(tables, apart, plan, structure)
        if out_of_time() or np.array_equal(plan, before):
            break
    return _likeliest(plan)


def _carried(tables: list[Plan], apart: Plan, plan: Plan, structure: float) -> Plan:
    """The plan after some more steps of conditional gradient; exact steps, so that it can be gone on with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged yet; and POT's own, when it is first compiled
        import ot

        carried: Plan = ot.gromov.fused_gromov_wasserstein(
            apart, tables[0], tables[1], plan.sum(1), plan.sum(0), alpha=structure, symmetric=True, G0=plan,
            max_iter=STEPS_BETWEEN_CLOCKS,
        )  # fmt: skip
    return carried


def _likeliest(plan: Plan) -> Pairing:
    """Where most of each row goes, and where most of each row of the other side comes from."""
    return Pairing.both_ways(plan.argmax(1), plan.argmax(0))


def _distances(rows: Matrix) -> Plan:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    apart: Plan = 1 - wide @ wide.T / np.outer(lengths, lengths)
    return apart


def _profiles_apart(rows: list[Matrix]) -> Plan:
    """1 - cosine of the profiles; of sides of two sizes, the longer profile is read at as many places as the other."""
    count = min(map(len, rows))
    one, other = (_read_at(profile(side), count).astype(np.float64) for side in rows)
    apart: Plan = 1 - one @ other.T
    return apart


def _read_at(profiles: Matrix, count: int) -> Matrix:
    if profiles.shape[1] == count:
        return profiles
    places = np.rint(np.linspace(0, profiles.shape[1] - 1, count)).astype(np.int64)
    read = profiles[:, places]
    shorter: Matrix = read / np.linalg.norm(read, axis=1, keepdims=True)
    return shorter
