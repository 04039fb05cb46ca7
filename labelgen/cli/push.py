"""`labelgen push`: share a dataset on a hub."""

from __future__ import annotations

import json
from pathlib import Path

import click

from labelgen.cli.options import json_option, quiet_option
from labelgen.cli.plain_text import echo

__all__ = ["push"]


@click.command()
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--public", "is_public", is_flag=True, help="Let everybody see a new repository.  [default: private]")
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Share more of DIR (.labelgen/job.yaml); may be repeated."
)
@json_option
@quiet_option
def push(dataset: Path, repo: str, is_public: bool, include: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Upload the dataset in the local folder DIR to the Hugging Face Hub, and check every file at the other end.

    README.md with its plots, manifest.json and the shards are shared, nothing else. Your tokens and keys are searched
    for first; where one stands, nothing is sent. Run the same command again to go on.

    \b
    labelgen card labels --license apache-2.0
    labelgen push labels me/my-labels
    """
    from labelgen.cli.progress_display import ProgressDisplay
    from labelgen.cli.render import print_rows
    from labelgen.cli.units import bytes_text
    from labelgen.push import push as shipping
    from labelgen.push.hub import HubRepo, PushError

    def note(message: str) -> None:
        if not quiet:
            echo(f"note: {message}", err=True)

    try:
        hub_repo = HubRepo(repo, note=note)
        with ProgressDisplay(doing="searching for secrets", unit="records") as display:

            def show(done: int, total: int) -> None:
                if not quiet:
                    line = f"searched {done:,} of {total:,} records for secrets"
                    display.show(done=done, total=total, rate="", line=line)

            shipment = shipping.prepare_push(dataset, hub_repo, include=include, on_records=show)
        summary = shipping.push(shipment, hub_repo, is_public=is_public)
    except (PushError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        values = {
            "url": summary.url,
            "commit": summary.commit,
            "files": summary.num_files,
            "bytes": summary.num_bytes,
            "removed": summary.num_removed,
        }
        click.echo(json.dumps(values))
        return
    rows = {
        "commit": summary.commit,
        "checked": f"{summary.num_files:,} files, {bytes_text(summary.num_bytes)}: sizes and hashes are those sent",
        "removed": f"{summary.num_removed:,} shards that the dataset has no more" if summary.num_removed else "",
        "read it": f'labelstore.open_dataset("hf://datasets/{repo}")',
    }
    print_rows(summary.url, rows)
