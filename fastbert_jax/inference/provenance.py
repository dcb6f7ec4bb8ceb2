"""What measured numbers are kept with: the command, the code, the machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys

import jax

from fastbert_jax.report.comparison import Provenance
from fastbert_jax.version import VERSION, commit


def provenance() -> Provenance:
    """Where the numbers of this process come from."""
    device = jax.devices()[0]
    return Provenance(
        command=shlex.join(["python", *_started_as(), *sys.argv[1:]]),
        commit=commit(),
        date=datetime.date.today().isoformat(),
        packages={
            "fastbert_jax": VERSION,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": platform.python_version(),
        },
        device=device.device_kind,
        platform=device.platform,
        machine=f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
    )


def _started_as() -> list[str]:
    """The script, or `-m` and the module, that this process runs."""
    module = sys.modules["__main__"].__spec__
    return sys.argv[:1] if module is None else ["-m", module.name]
