"""A home on this machine: its settings file, its Dagster instance, and the environment that points at both.

What belongs here is what a laptop needs. A production instance is described in `deploy/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from resources.compute import CPU, DOWNLOAD, GPU
from resources.settings import FILE, Settings, load_settings
from speech_mining.atomic import replacing

INSTANCE = "dagster"

_DAGSTER_YAML = """\
# A Dagster instance for one machine: runs, events and schedules in SQLite files beside this one.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    granularity: op
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 30
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


def set_pools(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Give each pool the number of steps that the settings allow at once."""
    limits = {GPU: settings.pools.gpu, CPU: settings.pools.cpu, DOWNLOAD: settings.pools.download}
    for pool, limit in limits.items():
        instance.event_log_storage.set_concurrency_slots(pool, limit)
