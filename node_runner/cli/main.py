"""`node-run`: `node-run a=b` trains; everything else is a command of its own.

A command imports what it needs when it runs, so that `--help`, `list` and `--cfg` start at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node_runner import __version__
from node_runner.cli.group import RunCommand, RunGroup
from node_runner.cli.leaving import Leaving


app = typer.Typer(
    cls=RunGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and compare Neural ODEs.\n\nnode-run dataset=spiral solver=dopri5 trains; "
    "node-run list shows every option.",
    epilog='Completion of commands, groups and options: eval "$(node-run -sc install=bash)" in your shell.',
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, sweeps, or patterns.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change.", show_default=False)
]

LAST_SEED = 2**63 - 1


def _version(value: bool) -> None:
    if value:
        print(f"node-run {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of node-run itself."""


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
def train(ctx: typer.Context) -> None:
    """Train one run, or a sweep with -m. All of Hydra's flags work. Example: node-run dataset=spiral solver=dopri5."""
    from node_runner.cli.completion import complete_command, is_query

    assert ctx.parent is not None
    commands: list[str] = list(ctx.parent.command.commands)  # type: ignore[attr-defined]
    if is_query(ctx.args) and complete_command(commands):
        return
    with Leaving():
        from node_runner.cli.train.hydra_entry import run_hydra

    raise typer.Exit(run_hydra(ctx.args, commands))


@app.command("list", cls=RunCommand)
def list_options(
    group: Annotated[str, typer.Argument(help="Such as dataset.", show_default=False)] = "",
    option: Annotated[str, typer.Argument(help="Such as spiral.", show_default=False)] = "",
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder with configs of your own.", show_default=False)
    ] = None,
) -> None:
    """Show what can be chosen, or the settings of one option. Example: node-run list dataset spiral."""
    from node_runner.cli.list.command import show_group, show_groups, show_option

    if "=" in group:
        group, _, option = group.partition("=")
    if option:
        show_option(group, option, config_dir)
    elif group:
        show_group(group, config_dir)
    else:
        show_groups(config_dir)


@app.command(cls=RunCommand)
def evaluate(
    run: Run,
    overrides: Overrides = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Measure this part only (repeatable; all but train if not given).", show_default=False),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best (lowest val/loss) or last.")] = "best",
    save: Annotated[Path | None, typer.Option(help="Write the metrics to this JSON file.", show_default=False)] = None,
) -> None:
    """Measure a run again, with other settings if you like.

    Example: node-run evaluate outputs/RUN tolerance.rtol=1e-6 solver=dopri8 --part test
    """
    from node_runner.cli.evaluate import evaluate as measure

    measure(run, overrides or [], part or [], checkpoint, save)


@app.command(cls=RunCommand)
def sample(
    run: Run,
    overrides: Overrides = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000_000,
            help="Points (1000), pairs of them (6), or trajectories where no --start is given (8).",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        list[str] | None, typer.Option(help="First state of a trajectory, as x,y (repeatable).", show_default=False)
    ] = None,
    until: Annotated[float | None, typer.Option(help="Time at which trajectories end.", show_default=False)] = None,
    times: Annotated[int, typer.Option(min=2, max=1_000_000, help="Output times of a trajectory.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of the drawn points.")] = 0,
    animate: Annotated[
        bool, typer.Option("--animate", help="A .gif too: the way from base to data, or moving states.")
    ] = False,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Between test points, through a flow's base or a latent space.")
    ] = False,
    checkpoint: Annotated[str, typer.Option(help="best (lowest val/loss) or last.")] = "best",
    out: Annotated[
        Path | None,
        typer.Option(
            help=".npz or .csv file; a .png goes beside it (RUN/samples.npz if not given).", show_default=False
        ),
    ] = None,
) -> None:
    """Draw points from a flow with their log-densities, or predict trajectories or irregular series.

    Examples: node-run sample outputs/RUN --count 5000 --out points.csv --animate, and
    node-run sample outputs/RUN --start 1.5,0 --start -1,1 --until 12
    """
    from node_runner.cli.sample.command import Request
    from node_runner.cli.sample.command import sample as draw

    draw(run, overrides or [], Request(count, start or [], until, times, seed, animate, interpolate), checkpoint, out)


@app.command(cls=RunCommand)
def resume(run: Run, overrides: Overrides = None) -> None:
    """Go on with a run that was stopped, that failed, or that should be longer.

    Only trainer.*, logger and figures may change.

    Example: node-run resume outputs/RUN trainer.steps=4000
    """
    from node_runner.cli.resume import resume as go_on

    go_on(run, overrides or [])


@app.command(cls=RunCommand)
def compare(
    runs: Runs,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw how the losses fell, and quality over cost, to this file.", show_default=False),
    ] = None,
) -> None:
    """Put runs side by side: what was chosen, how good they are, and what they cost.

    Example: node-run compare outputs/sweeps/NAME --plot comparison.png
    """
    from node_runner.cli.compare.command import compare as show

    show(runs, csv, json, plot)


@app.command(cls=RunCommand)
def ensemble(
    runs: Runs,
    band: Annotated[float, typer.Option(help="Probability with which the band is to hold the truth.")] = 0.9,
    until: Annotated[
        float | None, typer.Option(help="Time up to which trajectories are forecast.", show_default=False)
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best (lowest val/loss) or last.")] = "best",
    out: Annotated[
        Path | None,
        typer.Option(help=".json file; a .png goes beside it (ensemble.json beside the runs).", show_default=False),
    ] = None,
) -> None:
    """Take runs of several seeds together: mean, bands over the data and beyond, and how far they can be believed.

    Example: node-run -m seed=0,1,2,3,4 sweep=seeds, then node-run ensemble outputs/sweeps/seeds --until 20
    """
    from node_runner.cli.ensemble.command import ensemble as join

    join(runs, band, until, checkpoint, out)


@app.command(cls=RunCommand)
def ood(
    run: Run,
    overrides: Overrides = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="uniform, permuted, inverted, a data set, or your own: a table, images (.npz, .npy), a folder of "
            "pictures (repeatable; uniform and permuted if not given).",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Points of each, at the most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of noise, dequantisation and trace estimates.")] = 0,
    checkpoint: Annotated[str, typer.Option(help="best (lowest val/loss) or last.")] = "best",
    out: Annotated[
        Path | None,
        typer.Option(help=".json file; a .png goes beside it (RUN/ood.json if not given).", show_default=False),
    ] = None,
) -> None:
    """Ask a flow's log-density what is not of its data: test points against noise, or against other data.

    Example: node-run ood outputs/RUN --against uniform --against letters --against my_images/
    """
    from node_runner.cli.ood.command import ood as tell_apart

    tell_apart(run, overrides or [], against or ["uniform", "permuted"], count, seed, checkpoint, out)


@app.command(cls=RunCommand)
def robustness(
    runs: Runs,
    level: Annotated[
        list[float] | None,
        typer.Option(
            help="Deviation of the noise, as a share of the data's (repeatable; 0 to 1 in seven steps).",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the noise at each level.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of the noise.")] = 0,
    checkpoint: Annotated[str, typer.Option(help="best (lowest val/loss) or last.")] = "best",
    out: Annotated[
        Path | None,
        typer.Option(help=".json file; a .png goes beside it (robustness.json beside the runs).", show_default=False),
    ] = None,
) -> None:
    """Measure runs on test data with noise on the inputs; runs of several seeds are taken together.

    Example: node-run experiment=robustness_noise sweep=noise, then node-run robustness outputs/sweeps/noise
    """
    from node_runner.cli.robustness.command import robustness as strain

    strain(runs, level or [], draws, seed, checkpoint, out)


@app.command(cls=RunCommand)
def bench(
    overrides: Overrides = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Measure this engine only (repeatable; all if not given).", show_default=False),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.", show_default=False)] = None,
) -> None:
    """Measure a run's training step with every engine: time, evaluations, memory, and how gradients differ.

    Example: node-run bench dataset=two_moons model=cnf tolerance=tight
    """
    from node_runner.cli.bench import bench as measure

    measure(overrides or [], engine or [], save)


@app.command(cls=RunCommand)
def figures(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Runs, sweeps, or patterns (outputs).", show_default=False),
    ] = None,
    formats: Annotated[
        str | None, typer.Option(help="Such as pdf,svg (those of the run if not given).", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu (that of the run if not given).", show_default=False)
    ] = None,
) -> None:
    """Draw the figures of runs again, from their best weights: for a paper, or a run that was copied here.

    Example: node-run figures outputs/RUN --formats pdf,svg
    """
    from node_runner.cli.figures import figures as draw

    raise typer.Exit(1 if draw(runs or ["outputs"], formats, device) else 0)


@app.command(cls=RunCommand)
def board(
    folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("outputs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the first free one from 6006.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "localhost",
) -> None:
    """Start TensorBoard on the runs of a folder. Example: node-run board outputs --port 6007."""
    from node_runner.cli.board import board as serve

    serve(folder, port, host)


@app.command(cls=RunCommand)
def doctor() -> None:
    """Look at this machine: versions, device, compiler, threads, data, disk. Example: node-run doctor."""
    from node_runner.cli.doctor.command import doctor as examine

    examine()


def main() -> None:
    """Entry point of the `node-run` program."""
    # The user's own modules (NODE_RUNNER_PLUGINS, plug-ins in the working folder) can be imported.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    app(prog_name="node-run")


if __name__ == "__main__":
    main()
