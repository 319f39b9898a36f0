"""`s2s pools`: the limits of the instance beside those of the settings; with `--apply` they are made the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from resources.pools import PoolState


def pools(
    apply: Annotated[bool, typer.Option("--apply", help="Set the instance's limits to those of the settings.")] = False,
    free: Annotated[bool, typer.Option("--free", help="Take back the places of dead runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of pools as JSON.")] = False,
) -> None:
    """Show how many steps of a kind may run at once, how many do, and set the limits.

    With --free, places are taken back that runs hold which have ended; runs of this machine whose process is gone (a
    power cut) are called failed first, so that the daemon launches them again.

    The limits are kept by the Dagster instance (DAGSTER_HOME, else the one in the home) and wanted by the settings
    pools.gpu, pools.cpu and pools.download. In production, run `s2s pools --apply` before the daemon starts: running it
    again changes nothing. The exit code is 1 if the instance's limits are not those of the settings.

    Examples:
      s2s pools

      S2S_POOLS__GPU=4 s2s pools --apply
    """
    from resources.dead_runs import end_dead_runs
    from resources.pools import free_stale_slots, opened_instance, pool_states, set_pools
    from resources.settings import load_settings

    settings = load_settings()
    with opened_instance() as instance:
        changed = set_pools(instance, settings) if apply else {}
        ended = end_dead_runs(instance) if free else []
        freed = free_stale_slots(instance, settings) if free else []
        states = pool_states(instance, settings)
    for pool, (before, after) in changed.items():
        typer.echo(f"{pool}: {'no limit' if before is None else before} → {after}", err=True)
    for run_id in ended:
        typer.echo(f"ended: run {run_id}, whose process is gone", err=True)
    for slot in freed:
        typer.echo(f"taken back: {slot.step} of run {slot.run_id} ({slot.run_state})", err=True)
    typer.echo(json.dumps([asdict(state) for state in states], indent=2) if as_json else _table(states))
    if not all(state.as_wanted for state in states):
        raise typer.Exit(1)


def _table(states: list[PoolState]) -> str:
    lines = [f"{'pool':10} {'settings':>8} {'instance':>8} {'taken':>5} {'waiting':>7}"]
    for state in states:
        wanted, limit = ("-" if number is None else str(number) for number in (state.wanted, state.limit))
        lines.append(f"{state.name:10} {wanted:>8} {limit:>8} {len(state.slots):>5} {state.waiting:>7}")
        lines += [
            f"  {slot.step} of run {slot.run_id}: {slot.run_state}{', stale' if slot.stale else ''}"
            for slot in state.slots
        ]
    return "\n".join(lines)
