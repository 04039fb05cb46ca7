"""The group of all commands, and the one place where our errors become one line on the terminal."""

from __future__ import annotations

import errno
import os

import click

import labelgen
from labelgen.cli.card import card
from labelgen.cli.convert import convert
from labelgen.cli.doctor import doctor
from labelgen.cli.export import export
from labelgen.cli.finish import finish
from labelgen.cli.generate import generate
from labelgen.cli.inspect import inspect
from labelgen.cli.plain_text import plain
from labelgen.cli.plan import plan
from labelgen.cli.push import push
from labelgen.cli.score import score
from labelgen.cli.status import status
from labelgen.cli.verify import verify

__all__ = ["main"]

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO}


class LabelgenGroup(click.Group):
    """Shows our own errors as one line; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = plain(error.message)
            raise
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            place = f" {error.filename}" if error.filename else ""
            raise click.ClickException(
                f"cannot write or read{plain(place)}: {error.strerror}. What is complete is kept; run the same command "
                f"again when that is mended."
            ) from error
        except Exception as error:
            from labelgen.teachers.teacher import EngineError
            from labelstore.errors import StorageError

            if isinstance(error, StorageError | EngineError):
                raise click.ClickException(plain(str(error))) from error
            raise


@click.group(cls=LabelgenGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(labelgen.__version__, prog_name="labelgen")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Make offline teacher-label datasets for LLM distillation.

    A teacher runs once over a prompt set; the tokens it wrote and its top-k log-probabilities go into Parquet shards,
    which a student's trainer reads as often as it likes.
    """
    if os.environ.get("NO_COLOR"):  # rich looks by itself
        ctx.color = False


for command in (generate, score, plan, status, inspect, verify, convert, export, card, push, finish, doctor):
    main.add_command(command)
