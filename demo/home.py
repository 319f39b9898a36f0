"""A home on this machine: its settings file, its Dagster instance, and the environment that points at both.

What belongs here is what a laptop needs. A production instance is described in `deploy/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from resources.pools import INSTANCE
from resources.pools import set_pools as set_pools  # `s2s demo` and `make dev` set them on a home that they prepare
from resources.settings import FILE, Settings, load_settings
from speech_mining.atomic import replacing

_DAGSTER_YAML = """\
# A Dagster instance for one machine: runs, events and schedules in SQLite files beside this one.
# docs/resources.md says what each line is for; deploy/dagster.yaml is the one for production.
telemetry:
  enabled: false
nux:
  enabled: false

concurrency:
  pools:
    granularity: op                         # a pool counts steps; `s2s pools` shows them, pools.* in s2s.toml set them
  runs:
    max_concurrent_runs: 4                  # a run is a process of 150 MB, each step at work another

# A run whose process dies is ended by the code server that began it. Its places in the pools come free after this.
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 30

# A run that died (and did not end with an error of ours) is launched again, with half the batch and half the memory.
run_retries:
  enabled: true
  max_retries: 3
  retry_on_asset_or_op_failure: false

# Ticks are kept for the UI's timelines; without an end they outgrow all else (one sensor: 2 880 a day).
retention:
  schedule: { purge_after_days: 90 }
  sensor: { purge_after_days: { skipped: 7, success: 30, failure: 90, started: 30 } }
  auto_materialize: { purge_after_days: { skipped: 7, success: 30, failure: 90, started: 30 } }
"""

_S2S_TOML = """\
# Settings of this home; `s2s settings` shows all of them, S2S_* environment variables override them.
# The defaults mine the embedded miniature library. For the real LibriVox and SONAR, for example:
#
# catalogue_url = "https://librivox.org"
# languages = ["deu", "eng"]
# encoder = "sonar"
#
# [librivox]
# limit_books = 3
# user_agent_contact = "you@example.org"
#
# [mining]
# threshold = 1.06
"""


def prepare_home(home: Path) -> Settings:
    """Make the folders and files that are missing, and point this process and its children at the home.

    Files that are there are left as they are.
    """
    home = home.absolute()
    os.environ["S2S_HOME"] = str(home)
    os.environ["DAGSTER_HOME"] = str(home / INSTANCE)
    for path, text in ((home / INSTANCE / "dagster.yaml", _DAGSTER_YAML), (home / FILE, _S2S_TOML)):
        if not path.exists():
            with replacing(path) as part:
                part.write_text(text, "utf-8")
    return load_settings()
