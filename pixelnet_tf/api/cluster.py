"""Who does the cases: this program's processes, a part of them, or the workers of Dask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pixelnet_tf.cases.parts import Part
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.reporting import Reporter, reporter_or_log

if TYPE_CHECKING:
    from pixelnet_tf.dataset.workers import Engine


@contextmanager
def open_workers(scheduler: str, *, reporter: Reporter | None = None) -> Iterator[Engine]:
    """Reach a Dask scheduler, or start one; its workers are what verbs take as `workers`.

    Parameters
    ----------
    scheduler
        The address of a running one ("tcp://host:8786"); "local" or "local:N", N worker processes
        of this machine; "slurm" or "slurm:N", N jobs as Dask's configuration describes them in the
        section `jobqueue.slurm`.

    Raises
    ------
    ConfigError
        Another text, the extra `cluster` is missing, or Slurm's jobs are not described.
    RunError
        The scheduler does not answer.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> from pixelnet_tf.api.cluster import open_workers
    >>> study = px.Study.open("study", "phantom", ["prepare.bias_field.enabled=false"])
    >>> with open_workers("local:2") as workers:
    ...     prepared = study.prepare("prepared", workers=workers)
    """
    from pixelnet_tf.dataset.cluster import open_cluster

    with open_cluster(scheduler, reporter) as cluster:
        yield cluster


@contextmanager
def workers_of(scheduler: str | None, workers: int | None, reporter: Reporter
               ) -> Iterator[int | Engine | None]:
    """The workers that `--scheduler` names, else the number of this program's own processes."""
    if scheduler is None:
        yield workers
        return
    if workers is not None:
        raise ConfigError("workers are this program's own, or those of a scheduler", value=workers,
                          hint="give one of --workers and --scheduler")
    with open_workers(scheduler, reporter=reporter) as found:
        yield found


def part_of(part: str | None, reporter: Reporter | None = None) -> Part | None:
    """The part of the cases that a text "I/N" names, else that of this task of a Slurm array.

    Raises
    ------
    ConfigError
        There is no such part.
    """
    if part is not None:
        return Part.parse(part)
    found = Part.of_array()
    if found is not None:
        reporter_or_log(reporter).message(
            f"part {found} of the cases, as this is a task of a Slurm array; --part 1/1 takes all")
    return found
