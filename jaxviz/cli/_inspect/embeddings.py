"""jaxviz inspect embed | neighbors | scatter: what a layer makes of folders of photos, as vectors and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

import jaxviz
from jaxviz import ArgumentError, ImageError, inspection, plot
from jaxviz._atomic import write_atomically
from jaxviz._image_files import Skipped, find_files
from jaxviz._result_files import failures, refuse_existing, write_json, write_png
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect.app import inspect_app
from jaxviz.inspection._embeddings.thumbnails import pictures

LISTED = 20  # files at most that are named in the end
VECTORS = "embeddings"  # the folder below --out that holds them
QUERIES = 12  # unless they are given


class Pool(Enum):  # `StrEnum` would take `center` for the method of strings
    mean = "mean"
    max = "max"
    flatten = "flatten"
    center = "center"


class Metric(StrEnum):
    cosine = "cosine"
    l2 = "l2"
    l1 = "l1"


class Method(StrEnum):
    tsne = "tsne"
    pca = "pca"


class Arrange(StrEnum):
    grid = "grid"
    free = "free"
    dots = "dots"


Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Photos, and folders of photos with all that is in them.")
]
Layer = Annotated[str, typer.Option(metavar="LAYER", help="Of `jaxviz layers MODEL`, such as avgpool.")]
PoolOption = Annotated[Pool, typer.Option(help="What becomes of positions; flatten keeps all of them.")]
Chunk = Annotated[int | None, typer.Option(min=1, help="Images read and computed at a time; 64 if not given.")]
LabelsText = Annotated[
    str | None,
    typer.Option(
        metavar="classes|FILE",
        help="Instead of folder names: 'classes', the network's classes in the alphabetical order of the folders; or a file "
        "with lines FOLDER NAME.",
    ),
]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Where all goes; continued if begun.")]
MetricOption = Annotated[Metric, typer.Option(help="Of the distance between two photos.")]
Dark = Annotated[bool, typer.Option("--dark", help="White on black.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew, whatever the folder holds.")]


@inspect_app.command()
def embed(
    model: options.ModelName,
    images: Images,
    layer: Annotated[str, typer.Option(metavar="LAYERS", help="One, or several with commas: avgpool,layer3.")],
    out: Folder,
    pool: PoolOption = Pool.mean,
    size: options.SizeText = None,
    chunk: Chunk = None,
    labels: LabelsText = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Keep what a layer makes of every photo: LAYER.npz, vectors with files and classes.

    Stopped in whatever way, the same command again continues, also with more photos.

    Example: jaxviz inspect embed resnet18-imagenette photos --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    names = [name.strip() for name in layer.split(",")]
    made = run.embed(run.find(images, out), names, out, overwrite)
    _tell_skipped(made[names[0]].skipped)
    if not quiet:
        for name, one in made.items():
            typer.echo(f"{name}: {len(one)} vectors of {one.vectors.shape[1]} numbers, {len(set(one.labels))} classes")
        typer.echo(f"{out}")


@inspect_app.command()
def neighbors(
    model: options.ModelName,
    images: Images,
    layer: Layer,
    out: Folder,
    query: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE", help="Whose neighbors; may be given several times. Twelve of the photos if not given."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many neighbors.")] = 9,
    metric: MetricOption = Metric.cosine,
    pool: PoolOption = Pool.mean,
    size: options.SizeText = None,
    chunk: Chunk = None,
    labels: LabelsText = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    precision: options.PrecisionOption = options.Precision.highest,
    dark: Dark = False,
    overwrite: Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the photos that a layer takes for the most alike: neighbors.png and neighbors.json.

    Example: jaxviz inspect neighbors resnet18-imagenette photos --query cat.jpg --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    files = run.find(images, out, ["neighbors.png", "neighbors.json"], overwrite)
    known = run.embed(files, [layer], out / VECTORS, overwrite)[layer]
    _expect(known, 2)
    asked, place = None, {file: i for i, file in enumerate(known.files)}
    rows = [place.get(str(path.absolute()), -1) for path in query or ()]
    if query and min(rows) < 0:
        asked = run.embed_queries(query, layer)
        found = inspection.neighbors(known, asked, min(k, len(known)), metric=metric.value, mesh=run.mesh)
    else:
        if not rows:  # some of all classes: files come in the order of their folders
            rows = np.linspace(0, len(known) - 1, min(QUERIES, len(known))).round().astype(int).tolist()
        found = inspection.neighbors(known, np.asarray(rows), min(k, len(known) - 1), metric=metric.value, mesh=run.mesh)
    title = f"{run.network.name} {layer}, {len(known)} photos"
    with failures(out):
        write_png(out / "neighbors.png", Image.fromarray(found.picture(known, asked, title=title, dark=dark)))
        whose = asked if asked is not None else known[found.rows]
        listed = [
            {
                "query": whose.files[q],
                "label": whose.labels[q],
                "neighbors": [
                    {"file": known.files[i], "label": known.labels[i], "distance": float(distance)}
                    for i, distance in zip(found.indices[q], found.distances[q], strict=True)
                ],
            }
            for q in range(len(found))
        ]
        record = {"settings": {**known.settings, "metric": metric.value}, "queries": listed}
        write_json(out / "neighbors.json", record)
    _tell_skipped([*known.skipped, *(asked.skipped if asked else ())])
    if not quiet:
        typer.echo(f"{len(found)} queries, {len(known)} photos: {out / 'neighbors.png'}")


@inspect_app.command()
def scatter(
    model: options.ModelName,
    images: Images,
    layer: Layer,
    out: Folder,
    method: Annotated[
        Method, typer.Option(help="t-SNE, which keeps neighbors together, or the first two principal components.")
    ] = Method.tsne,
    perplexity: Annotated[
        float | None, typer.Option(help="Of t-SNE: about how many neighbors stay near; 30, fewer for few photos.")
    ] = None,
    seed: options.Seed = 0,
    metric: MetricOption = Metric.cosine,
    pool: PoolOption = Pool.mean,
    size: options.SizeText = None,
    chunk: Chunk = None,
    labels: LabelsText = None,
    arrange: Annotated[
        Arrange, typer.Option(help="Thumbnails of the PNG: moved to a grid, in their places where none overlap, or dots.")
    ] = Arrange.grid,
    pixels: Annotated[int, typer.Option(min=200, help="Longer side of the PNG's map.")] = 1600,
    tile: Annotated[int, typer.Option(min=8, help="Pixels of a thumbnail there.")] = 40,
    dark: Dark = False,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Lay all photos out on a plane: scatter.png, points.csv, and index.html to look around in.

    The page opens from disk; it needs what lies beside it, thumbnails/ and photos/, and no network.

    Example: jaxviz inspect scatter resnet18-imagenette photos --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    files = run.find(images, out, ["index.html", "scatter.png", "points.csv", "thumbnails", "photos"], overwrite)
    known = run.embed(files, [layer], out / VECTORS, overwrite)[layer]
    _expect(known, 3)
    if method is Method.pca:
        made = inspection.pca(known)
        points, ratio = made.transform(known), made.explained_variance_ratio
        title = f"Principal components of {layer}, {ratio[0]:.0%} and {ratio[1]:.0%} of the variance"
    else:
        how = "euclidean" if metric is Metric.l2 else "manhattan" if metric is Metric.l1 else "cosine"
        if not quiet:
            typer.echo(f"Laying out {len(known)} photos", err=True)
        points, title = inspection.tsne(known, perplexity=perplexity, seed=seed, metric=how), f"t-SNE of {layer}"
    title = f"{title}, {run.network.name}"
    near = inspection.neighbors(known, k=min(9, len(known) - 1), metric=metric.value, mesh=run.mesh)
    kinds = len(set(known.labels))
    classes = run.network.class_names if set(known.labels) <= set(run.network.class_names) else ()  # colours as elsewhere
    subtitle = f"{len(known)} photos, {kinds} class{'es' * (kinds != 1)}; neighbors by {metric.value} distance"
    with failures(out):
        shown = None if arrange is Arrange.dots else np.stack(list(pictures(known, range(len(known)), max(32, tile))))
        drawn = plot.scatter(
            points,
            shown,
            labels=known.labels,
            classes=classes,
            arrange=arrange.value,
            size=pixels,
            tile=tile,
            title=title,
            dark=dark,
        )
        write_png(out / "scatter.png", Image.fromarray(drawn))
        del shown
        write_atomically(out / "points.csv", lambda file: file.write(_table(known, points)))
    with Bar([len(known)], quiet) as bar:

        def tell(done: int, total: int) -> None:
            bar.finished(1)
            bar.say("thumbnails" if done < total else "done")

        page = inspection.write_page(
            out,
            points,
            known,
            near=near,
            classes=classes,
            title=title,
            subtitle=subtitle,
            overwrite=overwrite,
            progress=tell,
        )
    _tell_skipped(known.skipped)
    if not quiet:
        typer.echo(f"{len(known)} photos: {out / 'scatter.png'}, {page}")


class _Run:
    """What the commands share: the network, and how folders become vectors."""

    def __init__(
        self,
        model: str,
        weights: str | None,
        class_names: Path | None,
        devices: int | None,
        precision: options.Precision,
        pool: Pool,
        size: str | None,
        chunk: int | None,
        labels: str | None,
        quiet: bool,
    ) -> None:
        use_cpu_devices(devices)
        names = options.read_lines(class_names)
        self.network = jaxviz.load(model, weights=weights, class_names=names, progress=not quiet)
        self.mesh = jaxviz.make_mesh(devices)
        self._how: dict[str, Any] = {
            "pool": pool.value,
            "size": options.read_size(size),
            "chunk": chunk,
            "precision": precision.value,
            "mesh": self.mesh,
        }
        self._labels, self._quiet = labels, quiet
        self._names: dict[str, str] | None = None

    def find(self, images: Sequence[Path], out: Path, mine: Sequence[str] = (), overwrite: bool = True) -> list[Path]:
        """Return the files, `out` left out; refuse a folder that has files of these names and no vectors."""
        if not overwrite and not (out / VECTORS).is_dir():
            refuse_existing(out, mine)
        files, closed = find_files(images, out)
        _tell_skipped(closed)
        if not files:
            raise ImageError("There are no files in what was given.")
        self._names = _read_labels(self._labels, files, self.network.class_names)
        return files

    def embed(self, files: Sequence[Path], layers: list[str], out: Path, overwrite: bool) -> dict[str, inspection.Embeddings]:
        for name in layers:
            self.network.resolve(name)
        try:
            with Bar([len(files)], self._quiet) as bar:
                done = 0

                def tell(now: jaxviz.Progress) -> None:
                    nonlocal done
                    bar.finished(now.images_done - done)
                    bar.say("embedding")
                    done = now.images_done

                made = inspection.embed(
                    self.network, files, layers, labels=self._names, out=out, overwrite=overwrite, progress=tell, **self._how
                )
                bar.finished(len(files) - done)
                bar.say("done")
        except KeyboardInterrupt:
            typer.echo(f"jaxviz: interrupted; what was finished is in {out}: the same command again continues", err=True)
            raise typer.Exit(130) from None
        return made

    def embed_queries(self, paths: Sequence[Path], layer: str) -> inspection.Embeddings:
        return inspection.embed(self.network, paths, layer, labels=self._names, **self._how)


def _read_labels(text: str | None, files: Sequence[Path], class_names: Sequence[str]) -> dict[str, str] | None:
    """Return a class for each name of a folder, or None: the name itself."""
    if text is None:
        return None
    if text == "classes":
        folders = sorted({path.absolute().parent.name for path in files})
        if len(folders) != len(class_names):
            raise ArgumentError(
                f"Expected a folder for each of the network's {len(class_names)} classes; got {len(folders)} folders. "
                "Leave --labels away, or give a file with lines FOLDER NAME."
            )
        return dict(zip(folders, class_names, strict=True))
    found: dict[str, str] = {}
    for line in options.read_lines(Path(text)) or ():
        folder, *name = line.split(maxsplit=1)
        found[folder] = name[0] if name else folder
    return found


def _table(known: inspection.Embeddings, points: np.ndarray) -> bytes:
    """Return file, class and place of each photo as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file", "label", "x", "y"])
    for file, label, (x, y) in zip(known.files, known.labels, points, strict=True):
        writer.writerow([file, label, f"{x:.7g}", f"{y:.7g}"])
    return text.getvalue().encode(errors="backslashreplace")


def _expect(known: inspection.Embeddings, least: int) -> None:
    if len(known) < least:
        _tell_skipped(known.skipped)
        raise ImageError(f"Expected at least {least} photos that can be read; got {len(known)}.")


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    for one in skipped[:LISTED]:
        line = f"'{one.path}': {one.reason}".encode(errors="backslashreplace").decode()  # names need not be UTF-8
        typer.echo(f"jaxviz: skipped {line}", err=True)
    if len(skipped) > LISTED:
        typer.echo(f"jaxviz: skipped {len(skipped) - LISTED} more", err=True)
