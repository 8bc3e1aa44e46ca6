"""``cifarml doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json
from cifarml.cli.target import Target

if TYPE_CHECKING:
    from cifarml.doctor import Check

_MARKS = {"ok": "ok", "warning": "warn", "problem": "PROBLEM"}


def doctor(target: Target = None, json: options.Json = False) -> None:
    """Say whether this machine is ready, and what to do where not; exit code 1 where it isn't.

    Looks at Python, settings, disk, memory, TensorFlow and processors, and at the rights in Azure Storage
    where an account is set. With a workspace, or --target azure: at sign-in, workspace, and what each command
    needs there.

    [bold]Examples[/bold]

      cifarml doctor
      cifarml doctor --json
      cifarml doctor --target azure
    """
    from cifarml.doctor import run_checks

    checks = run_checks(target=target) if json else run_checks(target=target, on_check=_print_check)
    problems = sum(check.status == "problem" for check in checks)
    warnings = sum(check.status == "warning" for check in checks)
    if json:
        print_json({"ok": not problems, "checks": [check._asdict() for check in checks]})
    elif problems or warnings:
        print(f"Problems: {problems}, warnings: {warnings}")
    else:
        print("All is well.")
    if problems:
        raise typer.Exit(1)


def _print_check(check: Check) -> None:
    print(f"{_MARKS[check.status]:<8} {check.name:<16} {check.message}", flush=True)
    if check.hint:
        print(f"{'':<8} {'':<16} {check.hint}", flush=True)
