"""``cifarml jobs``: trainings on clusters in Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json, print_table, shown_path
from cifarml.cli.target import open_workspace

if TYPE_CHECKING:
    from cifarml.azure.jobs.jobs import Job

app = typer.Typer(name="jobs", help="Look at trainings on clusters in Azure.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as jobs list shows it.")]


@app.command("list")
def list_command(json: options.Json = False) -> None:
    """List the training jobs, the oldest first.

    [bold]Examples[/bold]

      cifarml jobs list
    """
    from cifarml.azure.jobs.jobs import list_jobs

    jobs = list_jobs(open_workspace())
    if json:
        print_json([_document(job) for job in jobs])
    elif not jobs:
        print("There are no jobs. Start one with: cifarml train --compute NAME")
    else:
        rows = [
            (
                job.name,
                job.run,
                job.state,
                job.compute,
                f"{job.created_at.astimezone():%Y-%m-%d %H:%M}" if job.created_at else "",
            )
            for job in jobs
        ]
        print_table("", ("job", "run", "state", "cluster", "submitted"), rows)


@app.command()
def show(name: Name, json: options.Json = False) -> None:
    """Show a job.

    [bold]Examples[/bold]

      cifarml jobs show cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import get_job

    job = get_job(open_workspace(), name)
    if json:
        print_json(_document(job))
        return
    rows = [("run", job.run), ("state", job.state), ("cluster", job.compute), ("page", job.page)]
    print_table(f"Job {job.name}", ("what", "value"), rows)
    if job.state == "completed":
        print(f"Next: cifarml jobs fetch {job.name}")


@app.command()
def logs(name: Name) -> None:
    """Print what a job writes, until it ends. Ctrl-C leaves it running.

    [bold]Examples[/bold]

      cifarml jobs logs cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import follow_job, get_job

    workspace = open_workspace()
    job = get_job(workspace, name)
    try:
        job = follow_job(workspace, job, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        note(f"The job goes on. See: cifarml jobs logs {job.name}")
        raise typer.Exit(130) from None
    note(f"Job {job.name} has {job.state}")


@app.command()
def cancel(name: Name, json: options.Json = False) -> None:
    """End a job.

    [bold]Examples[/bold]

      cifarml jobs cancel cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import cancel_job

    job = cancel_job(open_workspace(), name)
    if json:
        print_json(_document(job))
    else:
        print(f"{job.name} is {job.state}")


@app.command()
def fetch(
    name: Name, runs_dir: options.RunsDir = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Bring the run folder of a job home; each file is checked.

    [bold]Examples[/bold]

      cifarml jobs fetch cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import fetch_run, get_job
    from cifarml.progress import show_progress
    from cifarml.settings import load_settings

    workspace = open_workspace()
    job = get_job(workspace, name)
    with show_progress(quiet=quiet) as on_progress:
        run = fetch_run(workspace, job, runs_dir or load_settings().runs_dir, on_progress=on_progress)
    if json:
        print_json({"path": str(run.path.resolve()), **run.info})
        return
    print(f"Run folder:      {shown_path(run.path)}")
    print(f"Next: cifarml models register {shown_path(run.path)}")


def _document(job: Job) -> dict[str, Any]:
    return vars(job) | {"created_at": job.created_at.isoformat() if job.created_at else None}
