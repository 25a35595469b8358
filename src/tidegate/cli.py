"""The command line: a thin shell over the Python verbs. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.errors import ConfigError, InputError, TidegateError
from tidegate.version import __version__

app = typer.Typer(
    name="tidegate",
    help="Recurrent networks that train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[str, typer.Argument(help="CSV, TSV (.gz too), Parquet, JSON lines or Arrow file, or a text file.")]
Run = Annotated[Path, typer.Argument(help="A run folder or saved model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Recurrent networks that train."""


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text)


Text = str | None
Whole = int | None
Real = float | None
Names = list[str] | None
Target = Annotated[Names, _option("Column to predict; repeatable.")]
Id = Annotated[Text, _option("Column that tells sequences apart.")]
Time = Annotated[Text, _option("Column that orders the steps.")]
TaskOption = Annotated[
    Text,
    _option(
        "classification, multilabel, regression, tagging or forecasting, inferred if left out; "
        "generate or translate, for texts."
    ),
]


@app.command()
def train(
    data: Annotated[Text, typer.Argument(help="The table, or the text file, to train on.")] = None,
    target: Target = None,
    id: Id = None,
    time: Time = None,
    task: TaskOption = None,
    out: Annotated[Path | None, _option("Run folder; default runs/<data>-<n>.")] = None,
    valid: Annotated[Text, _option("Fraction to hold out (0.15), or a validation file.")] = None,
    known: Annotated[Names, _option("Column whose future is known (forecasts); repeatable.")] = None,
    cell: Annotated[Text, _option("rnn, lstm, gru …")] = None,
    hidden_size: Annotated[Whole, _option("Units per layer.")] = None,
    layers: Annotated[Whole, _option("Recurrent layers.")] = None,
    dropout: Annotated[Real, _option("Dropout probability between layers and before the head.")] = None,
    epochs: Annotated[Whole, _option("Most epochs to train.")] = None,
    batch_size: Annotated[Whole, _option("Sequences per batch.")] = None,
    lr: Annotated[Real, _option("Learning rate.")] = None,
    horizon: Annotated[Whole, _option("Steps ahead to forecast.")] = None,
    seed: Annotated[Whole, _option("Seed of everything random.")] = None,
    option: Annotated[
        Names, _option("Any other option, NAME=VALUE, the value as JSON or text; repeatable.", "--set")
    ] = None,
    config: Annotated[Path | None, _option("JSON or TOML file of options; options given here win.")] = None,
    resume: Annotated[Path | None, _option("Go on with this run folder.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train on a table or a text; write a run folder with model, metrics and report."""
    names = ("id", "time", "task", "cell", "hidden_size", "layers", "dropout", "epochs", "batch_size", "lr", "horizon")
    given = {name: value for name, value in locals().items() if name in (*names, "seed") and value is not None}
    given |= {name: tuple(many) for name, many in (("target", target), ("known", known)) if many}
    given |= dict(map(_assignment, option or ()))
    _train(data, given, config, valid, out, resume, quiet=quiet, as_json=as_json)


def _assignment(text: str) -> tuple[str, Any]:
    """Return name and value of NAME=VALUE."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ConfigError("reading --set", expected="NAME=VALUE", got=repr(text), hint="--set patience=5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _train(
    data: str | None,
    given: dict[str, Any],
    config: Path | None,
    valid: str | None,
    out: Path | None,
    resume: Path | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    from tidegate import run as runs
    from tidegate.config import make_config, read_config, take_valid
    from tidegate.train.progress import progress

    options = {**(read_config(config) if config else {}), **given}
    held = take_valid(options, valid)
    # With DATA beside --resume, a run killed before it wrote its configuration simply starts.
    fresh = resume is None or (data is not None and not (resume / runs.CONFIG).exists())
    folder = _folder(data, resume, out)
    made: list[Path] = []
    if fresh and data is not None:
        made = runs.start_run(folder, data, held, make_config(options))
    else:
        runs.check_same(folder, data, held, options)
    try:
        done = runs.run(folder, resume=not fresh, made=made, observers=progress(quiet or as_json))
    except KeyboardInterrupt:
        typer.echo(f"interrupted; to go on: tidegate train --resume {folder}", err=True)
        raise typer.Exit(130) from None
    model, notes = (done.model, done.notes) if isinstance(done, runs.Trained) else (done, [])
    _tell(notes, quiet or as_json)
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **model.metrics}))
    elif not quiet:
        _figures(model.metrics, "validation")
        typer.echo(f"run folder {folder}, report {folder / runs.REPORT}")


def _folder(data: str | None, resume: Path | None, out: Path | None) -> Path:
    """Return the run folder that is meant."""
    from tidegate.run import default_folder

    if data is None and resume is None:
        raise ConfigError(
            "starting to train",
            expected="a data file, or --resume RUN",
            got="neither",
            hint="tidegate train data.csv --target y",
        )
    if resume and out and resume.resolve() != out.resolve():
        raise ConfigError(
            f"resuming {resume}", expected="no --out: a run stays in its folder", got=str(out), hint="leave --out away"
        )
    return resume or out or default_folder(str(data))


@app.command()
def evaluate(
    run: Run,
    data: Data,
    target: Annotated[Text, _option("Text file of translations, beside a text file of sources.")] = None,
    start: Annotated[Text, _option("Score only forecasts that begin at this time or later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model on a table with targets, or on a text."""
    from tidegate.api import load

    model: Any = load(run)
    if target is not None:
        _check_verb(model, run, "translate")
    figures = model.evaluate(data, start=start) if target is None else model.evaluate(data, target, start=start)
    _tell(model.notes, as_json)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _figures(figures, Path(data).name)


@app.command()
def predict(
    run: Run,
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help=".csv, .parquet or .jsonl")],
) -> None:
    """Write predictions that join back to the table by id and time."""
    from tidegate.api import load
    from tidegate.data.output import check_output, write_predictions

    check_output(output, Path(data))
    model = load(run)
    frame = model.predict(data)
    write_predictions(frame, output)
    _tell(model.notes, False)
    typer.echo(f"{frame.height} rows written to {output}", err=True)


@app.command()
def generate(
    run: Run,
    prompt: Annotated[str, _option("Text to write on from.")] = "",
    length: Annotated[int, _option("Most tokens to write.")] = 200,
    temperature: Annotated[float, _option("Below 1 safer, above 1 wilder; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[Whole, _option("Draw from so many of the likeliest tokens.")] = None,
    top_p: Annotated[Real, _option("Draw from the likeliest tokens that make up this probability.")] = None,
    seed: Annotated[Whole, _option("Seed: the same one writes the same text.")] = None,
) -> None:
    """Write text with a language model."""
    model = _writer(run, "generate")
    text = model.generate(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    _tell(model.notes, False)
    typer.echo(text)


@app.command()
def translate(
    run: Run,
    file: Annotated[str, typer.Argument(help="A text file, a source a line, - for standard input, or a table.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Text file; default standard output.")] = None,
    beam: Annotated[int, _option("Hypotheses kept at each step.")] = 5,
    length_penalty: Annotated[float, _option("Above 0 favours longer translations.")] = 1.0,
    alignment: Annotated[Path | None, _option("HTML page that draws what each word looked at, of 20 texts.")] = None,
) -> None:
    """Translate a file line by line."""
    from tidegate.data.output import check_place
    from tidegate.data.pairs import open_sources
    from tidegate.files import write_atomically

    for path in (output, alignment):
        if path is not None:
            check_place(f"writing to {path}", path, file)
    if output is not None and alignment is not None and output.resolve() == alignment.resolve():
        raise ConfigError(
            "translating", expected="a file each for -o and --alignment", got=f"{output} for both",
            hint=f"--alignment {output.stem}.html",
        )  # fmt: skip
    model = _writer(run, "translate")
    if alignment is not None:
        model.check_attention()
    given = [line.rstrip("\r\n") for line in sys.stdin] if file == "-" else file
    sources = open_sources(given, model.blueprint.columns[0])
    lines = model.translate(sources, beam=beam, length_penalty=length_penalty)
    notes = model.notes
    if alignment is not None:
        model.draw(alignment, sources, beam=beam, length_penalty=length_penalty)
    text = "".join(f"{' '.join(line.split())}\n" for line in lines)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text.encode())
    _tell(notes, False)


def _writer(run: Path, verb: str) -> Any:
    """Return the model of a run that was trained for `verb`."""
    from tidegate.api import load

    model = load(run)
    _check_verb(model, run, verb)
    return model


def _check_verb(model: Any, run: Path, verb: str) -> None:
    if not hasattr(model, verb):
        raise ConfigError(
            f"using {run}",
            expected=f"a model trained with --task {verb}",
            got=repr(model),
            hint=f"tidegate train DATA --task {verb}",
        )


@app.command()
def inspect(
    data: Data,
    target: Target = None,
    id: Id = None,
    time: Time = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a table (kinds, lengths, gaps, tail) and the plan it implies."""
    from tidegate.inspection import inspect_table, show

    profile = inspect_table(data, target=tuple(target or ()), id=id, time=time)
    typer.echo(json.dumps(profile) if as_json else show(profile))


@app.command()
def find_rate(
    data: Data,
    target: Target = None,
    id: Id = None,
    time: Time = None,
    out: Annotated[Path | None, _option("HTML page to draw the curve into.")] = None,
    low: Annotated[float, _option("Rate to begin with.")] = 1e-6,
    high: Annotated[float, _option("Rate to end with.")] = 1.0,
    steps: Annotated[int, _option("Batches to try.")] = 100,
    option: Annotated[
        Names, _option("Any option of train, NAME=VALUE, the value as JSON or text; repeatable.", "--set")
    ] = None,
    config: Annotated[Path | None, _option("JSON or TOML file of options.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try learning rates from far too small to far too large, and say where the loss falls fastest."""
    from tidegate.api import find_rate as test

    options = dict(map(_assignment, option or ()))
    found = test(
        data, tuple(target) if target else None, id=id, time=time, config=config, low=low, high=high, steps=steps,
        out=out, **options,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"suggested": found.suggested, "rates": found.rates, "losses": found.losses}))
    else:
        said = "the loss fell at no rate" if found.suggested is None else f"--lr {found.suggested:.2g}"
        typer.echo(f"{said}, from {len(found.rates)} rates" + (f"; {out}" if out else ""))


@app.command()
def bench(
    cells: Annotated[Text, _option("Cells to time, commas between; default all.")] = None,
    sizes: Annotated[Text, _option("BATCHxUNITS or BATCHxUNITSxSTEPS, commas between; 100 steps unless given.")] = None,
    backend: Annotated[Text, _option("Backends to time besides the one that is chosen, commas between.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two sizes and few rounds: a look, not a figure.")] = False,
    threads: Annotated[int, _option("Threads of every candidate.")] = 2,
    out: Annotated[Path, _option("Folder for bench.json and bench.html.")] = Path("bench-output"),
    as_json: AsJson = False,
) -> None:
    """Time Tidegate's layers beside torch.nn, a PyTorch loop and jax.lax.scan on this machine."""
    from tidegate.bench.command import bench as measure
    from tidegate.bench.run import make_plan

    plan = make_plan(cells, sizes, backend, quick=quick, threads=threads)
    report = measure(plan, out, None if as_json else typer.echo)
    if as_json:
        typer.echo(json.dumps(report))


def _tell(notes: list[str], silent: bool) -> None:
    if not silent:
        for note in notes:
            typer.echo(f"note: {note}", err=True)


def _figures(figures: dict[str, float], where: str) -> None:
    for name, value in figures.items():
        typer.echo(f"{where} {name} {value:.4g}")


def main() -> None:
    """Run the command line; 0 done, 1 our fault, 2 the user's input; typer itself makes an interruption 130."""
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except TidegateError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # A full disk, a folder without permission: the machine's reason says more than a traceback.
        if error.filename is None:
            raise
        reason = ConfigError(
            f"using {error.filename}",
            got=error.strerror or "no access",
            hint="check the path, its permissions, the disk",
        )
        typer.echo(f"error: {reason}", err=True)
        sys.exit(2)
