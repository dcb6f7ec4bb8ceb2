"""Completion by the tab key: tyro's script for a shell, and what makes it work after `python`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import tyro

from fastbert_jax.errors import UserError, closest

PRINT_COMPLETION = "--completion"
# The shell asks what completes `python`; the words from the script's name on go to that script's own function.
AFTER_PYTHON = r"""
_fastbert_jax_after_python() {
  local -a all=("${COMP_WORDS[@]}")
  local at name function cword=$COMP_CWORD
  for ((at = 1; at < cword; at++)); do
    name="${all[at]##*/}"
    function="_tyro_${name//[^a-zA-Z0-9_]/_}"
    if [[ "$name" == *.py ]] && declare -F "$function" >/dev/null; then
      local -a COMP_WORDS=("$name" "${all[@]:$((at + 1))}")
      local COMP_CWORD=$((cword - at))
      "$function"
      return
    fi
  done
  COMPREPLY=()
}
complete -o default -F _fastbert_jax_after_python python python3
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n"
SHELLS = ("bash", "zsh")


def completion_script(schema: Any, shells: Sequence[str], *, program: str, style: Sequence[Any]) -> str:
    """What a shell sources to complete `python PROGRAM`; zsh takes bash's, by its own `bashcompinit`.

    Raises:
      UserError: no shell, or one that is not known.
    """
    shell = shells[0] if shells else ""
    if shell not in SHELLS:
        near = closest(shell, SHELLS)
        remedy = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"{PRINT_COMPLETION}: expected one of {', '.join(SHELLS)}, found {shell!r}{remedy}")
    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        tyro.cli(schema, prog=program, args=["--tyro-print-completion", "bash"], config=style)
    return (ZSH if shell == "zsh" else "") + script.getvalue() + AFTER_PYTHON
