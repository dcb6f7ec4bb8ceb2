"""How a script ends: its exit code, and no traceback for what a user can mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fastbert_jax.cache import keep_compiled_programs
from fastbert_jax.errors import PreemptedError, UserError


def end_with(main: Callable[[], None]) -> None:
    """Run a script's main function.

    A user's mistake ends with its message and code 2, a run that was asked to stop and is saved with 42, Ctrl-C with
    130, and a reader of our output that has seen enough (`| head`) with 141, all without a traceback. Programs that
    jax compiles are kept for the next time.
    """
    keep_compiled_programs()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PreemptedError as error:
        print(error, file=sys.stderr)
        sys.exit(42)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end goes nowhere
        sys.exit(141)
