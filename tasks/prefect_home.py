"""Where Prefect keeps what it keeps: under the runs folder, with nothing sent anywhere.

Prefect reads its settings from the environment when it is first imported, so this comes before that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def keep_prefect_in(runs: Path) -> None:
    """Point Prefect at `runs`/prefect, unless the user configured a home or a server of their own.

    Raises `RuntimeError` when Prefect was imported before: it would silently keep things elsewhere.
    """
    if "prefect" in sys.modules:
        raise RuntimeError(
            "Prefect is told where to keep things before it is imported, but it is imported already"
        )
    home = (runs / "prefect").resolve()
    home.mkdir(parents=True, exist_ok=True)
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # a temporary server takes longer than the default 20 s to come up on a busy machine
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # the console belongs to our own progress; the run's page still has every log line
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
