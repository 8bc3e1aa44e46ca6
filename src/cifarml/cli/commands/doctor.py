"""``cifarml doctor``: check the machine and the Azure configuration."""

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
    """Check that cifarml can run on this machine.

    Checks Python, settings, disk, memory, TensorFlow and processors, and the
    permissions in Azure Storage if an account is configured. With a workspace, or
    --target azure, also checks the sign-in, the workspace and the permissions
    that each command requires there. The exit code is 1 if there is a problem.

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
        print("No problems found.")
    if problems:
        raise typer.Exit(1)


def _print_check(check: Check) -> None:
    print(f"{_MARKS[check.status]:<8} {check.name:<16} {check.message}", flush=True)
    if check.hint:
        print(f"{'':<8} {'':<16} {check.hint}", flush=True)
