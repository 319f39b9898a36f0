"""`python -m benchmarks.peers [SRC.npy TGT.npy] [...]`: the options of `s2s bench`."""

from __future__ import annotations

import sys

import typer

from speech_mining.cli.bench import bench
from speech_mining.errors import SpeechMiningError

app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
app.command()(bench)


def main() -> None:
    """Run it; an error of ours is one paragraph, as in the command."""
    try:
        app(prog_name="python -m benchmarks.peers")
    except SpeechMiningError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
