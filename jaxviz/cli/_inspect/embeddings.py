"""jaxviz inspect embed | neighbors | scatter: embeddings of folders of photos by a layer, as vectors and pictures."""

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
from jaxviz._image_files import find_files
from jaxviz._result_files import failures, refuse_existing, write_json, write_png
from jaxviz.cli._common import options, skipped
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect.app import inspect_app
from jaxviz.inspection._embeddings.thumbnails import pictures

VECTORS = "embeddings"  # folder of the vectors, below --out
QUERIES = 12  # default number of queries


class Pool(Enum):  # not `StrEnum`: `center` is a method of strings
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
    list[Path], typer.Argument(metavar="IMAGE...", help="Photos, and folders with photos in all their subfolders.")
]
Layer = Annotated[str, typer.Option(metavar="LAYER", help="Layer, as in `jaxviz layers MODEL`, such as avgpool.")]
PoolOption = Annotated[Pool, typer.Option(help="Reduction over positions; flatten keeps all of them.")]
Chunk = Annotated[int | None, typer.Option(min=1, help="Images at a time; default: 64.")]
LabelsText = Annotated[
    str | None,
    typer.Option(
        metavar="classes|FILE",
        help="Labels instead of folder names: 'classes' for the network's classes in alphabetical order of the folders, or a "
        "file with lines FOLDER NAME.",
    ),
]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Folder for all files; an unfinished run is continued.")]
MetricOption = Annotated[Metric, typer.Option(help="Distance between two photos.")]
Dark = Annotated[bool, typer.Option("--dark", help="Dark background.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files in the folder.")]


@inspect_app.command()
def embed(
    model: options.ModelName,
    images: Images,
    layer: Annotated[str, typer.Option(metavar="LAYERS", help="Comma-separated layers: avgpool,layer3.")],
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
    """Embed photos by a layer's activations: LAYER.npz with vectors, files and classes.

    If the run stops, the same command continues it, also with more photos.

    Example: jaxviz inspect embed resnet18-imagenette photos --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    names = [name.strip() for name in layer.split(",")]
    embeddings = run.embed(run.find(images, out), names, out, overwrite)
    skipped.tell(embeddings[names[0]].skipped)
    if not quiet:
        for name, layer_embeddings in embeddings.items():
            dimensions, classes = layer_embeddings.vectors.shape[1], len(set(layer_embeddings.labels))
            typer.echo(f"{name}: {len(layer_embeddings)} vectors of {dimensions} numbers, {classes} classes")
        typer.echo(f"{out}")


@inspect_app.command()
def neighbors(
    model: options.ModelName,
    images: Images,
    layer: Layer,
    out: Folder,
    query: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE", help="Query photo. Repeatable; default: twelve of the photos."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of neighbors.")] = 9,
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
    """Find the nearest photos in a layer's embedding: neighbors.png and neighbors.json.

    Example: jaxviz inspect neighbors resnet18-imagenette photos --query cat.jpg --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    files = run.find(images, out, ["neighbors.png", "neighbors.json"], overwrite)
    known = run.embed(files, [layer], out / VECTORS, overwrite)[layer]
    _expect(known, 2)
    queries, row_of = None, {file: i for i, file in enumerate(known.files)}
    rows = [row_of.get(str(path.absolute()), -1) for path in query or ()]
    if query and min(rows) < 0:
        queries = run.embed_queries(query, layer)
        nearest = inspection.neighbors(known, queries, min(k, len(known)), metric=metric.value, mesh=run.mesh)
    else:
        if not rows:  # from all classes: files are ordered by folder
            rows = np.linspace(0, len(known) - 1, min(QUERIES, len(known))).round().astype(int).tolist()
        nearest = inspection.neighbors(known, np.asarray(rows), min(k, len(known) - 1), metric=metric.value, mesh=run.mesh)
    title = f"{run.network.name} {layer}, {len(known)} photos"
    with failures(out):
        write_png(out / "neighbors.png", Image.fromarray(nearest.picture(known, queries, title=title, dark=dark)))
        photos = queries if queries is not None else known[nearest.rows]
        listed = [
            {
                "query": photos.files[q],
                "label": photos.labels[q],
                "neighbors": [
                    {"file": known.files[i], "label": known.labels[i], "distance": float(distance)}
                    for i, distance in zip(nearest.indices[q], nearest.distances[q], strict=True)
                ],
            }
            for q in range(len(nearest))
        ]
        record = {"settings": {**known.settings, "metric": metric.value}, "queries": listed}
        write_json(out / "neighbors.json", record)
    skipped.tell([*known.skipped, *(queries.skipped if queries else ())])
    if not quiet:
        typer.echo(f"{len(nearest)} queries, {len(known)} photos: {out / 'neighbors.png'}")


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
        float | None,
        typer.Option(help="Perplexity of t-SNE, about the number of neighbors; default: 30, or less."),
    ] = None,
    seed: options.Seed = 0,
    metric: MetricOption = Metric.cosine,
    pool: PoolOption = Pool.mean,
    size: options.SizeText = None,
    chunk: Chunk = None,
    labels: LabelsText = None,
    arrange: Annotated[
        Arrange, typer.Option(help="Layout of thumbnails in the PNG: on a grid, free without overlaps, or dots.")
    ] = Arrange.grid,
    pixels: Annotated[int, typer.Option(min=200, help="Longer side of the PNG's map in pixels.")] = 1600,
    tile: Annotated[int, typer.Option(min=8, help="Size of a thumbnail in the PNG in pixels.")] = 40,
    dark: Dark = False,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Plot photos in two dimensions: scatter.png, points.csv, and an interactive index.html.

    The page opens from disk; it needs thumbnails/ and photos/ beside it, and no network connection.

    Example: jaxviz inspect scatter resnet18-imagenette photos --layer avgpool --out out
    """
    run = _Run(model, weights, class_names, devices, precision, pool, size, chunk, labels, quiet)
    files = run.find(images, out, ["index.html", "scatter.png", "points.csv", "thumbnails", "photos"], overwrite)
    known = run.embed(files, [layer], out / VECTORS, overwrite)[layer]
    _expect(known, 3)
    if method is Method.pca:
        components = inspection.pca(known)
        points, ratio = components.transform(known), components.explained_variance_ratio
        title = f"Principal components of {layer}, {ratio[0]:.0%} and {ratio[1]:.0%} of the variance"
    else:
        distance = "euclidean" if metric is Metric.l2 else "manhattan" if metric is Metric.l1 else "cosine"
        if not quiet:
            typer.echo(f"Laying out {len(known)} photos", err=True)
        points, title = inspection.tsne(known, perplexity=perplexity, seed=seed, metric=distance), f"t-SNE of {layer}"
    title = f"{title}, {run.network.name}"
    near = inspection.neighbors(known, k=min(9, len(known) - 1), metric=metric.value, mesh=run.mesh)
    kinds = len(set(known.labels))
    classes = run.network.class_names if set(known.labels) <= set(run.network.class_names) else ()  # for their colors
    subtitle = f"{len(known)} photos, {kinds} class{'es' * (kinds != 1)}; neighbors by {metric.value} distance"
    with failures(out):
        thumbnails = None if arrange is Arrange.dots else np.stack(list(pictures(known, range(len(known)), max(32, tile))))
        page = plot.scatter(
            points,
            thumbnails,
            labels=known.labels,
            classes=classes,
            arrange=arrange.value,
            size=pixels,
            tile=tile,
            title=title,
            dark=dark,
        )
        write_png(out / "scatter.png", Image.fromarray(page))
        del thumbnails
        write_atomically(out / "points.csv", lambda file: file.write(_table(known, points)))
    with Bar([len(known)], quiet) as bar:

        def report(done: int, total: int) -> None:
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
            progress=report,
        )
    skipped.tell(known.skipped)
    if not quiet:
        typer.echo(f"{len(known)} photos: {out / 'scatter.png'}, {page}")


class _Run:
    """Shared by the commands: the network, and embedding of folders."""

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
        self._options: dict[str, Any] = {
            "pool": pool.value,
            "size": options.read_size(size),
            "chunk": chunk,
            "precision": precision.value,
            "mesh": self.mesh,
        }
        self._labels, self._quiet = labels, quiet
        self._names: dict[str, str] | None = None

    def find(self, images: Sequence[Path], out: Path, mine: Sequence[str] = (), overwrite: bool = True) -> list[Path]:
        """Return the files outside of `out`; refuse a folder that has files of these names but no vectors."""
        if not overwrite and not (out / VECTORS).is_dir():
            refuse_existing(out, mine)
        files, unreadable = find_files(images, out)
        skipped.tell(unreadable)
        if not files:
            raise ImageError("There are no files in these folders.")
        self._names = _read_labels(self._labels, files, self.network.class_names)
        return files

    def embed(self, files: Sequence[Path], layers: list[str], out: Path, overwrite: bool) -> dict[str, inspection.Embeddings]:
        for name in layers:
            self.network.resolve(name)
        try:
            with Bar([len(files)], self._quiet) as bar:
                done = 0

                def report(now: jaxviz.Progress) -> None:
                    nonlocal done
                    bar.finished(now.images_done - done)
                    bar.say("embedding")
                    done = now.images_done

                embeddings = inspection.embed(
                    self.network,
                    files,
                    layers,
                    labels=self._names,
                    out=out,
                    overwrite=overwrite,
                    progress=report,
                    **self._options,
                )
                bar.finished(len(files) - done)
                bar.say("done")
        except KeyboardInterrupt:
            typer.echo(f"jaxviz: interrupted; finished photos are in {out}: the same command continues", err=True)
            raise typer.Exit(130) from None
        return embeddings

    def embed_queries(self, paths: Sequence[Path], layer: str) -> inspection.Embeddings:
        return inspection.embed(self.network, paths, layer, labels=self._names, **self._options)


def _read_labels(text: str | None, files: Sequence[Path], class_names: Sequence[str]) -> dict[str, str] | None:
    """Return a label for each folder name, or None for the names themselves."""
    if text is None:
        return None
    if text == "classes":
        folders = sorted({path.absolute().parent.name for path in files})
        if len(folders) != len(class_names):
            raise ArgumentError(
                f"Expected a folder for each of the network's {len(class_names)} classes; got {len(folders)} folders. "
                "Omit --labels, or give a file with lines FOLDER NAME."
            )
        return dict(zip(folders, class_names, strict=True))
    names: dict[str, str] = {}
    for line in options.read_lines(Path(text)) or ():
        folder, *name = line.split(maxsplit=1)
        names[folder] = name[0] if name else folder
    return names


def _table(known: inspection.Embeddings, points: np.ndarray) -> bytes:
    """Return file, label and position of each photo as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file", "label", "x", "y"])
    for file, label, (x, y) in zip(known.files, known.labels, points, strict=True):
        writer.writerow([file, label, f"{x:.7g}", f"{y:.7g}"])
    return text.getvalue().encode(errors="backslashreplace")


def _expect(known: inspection.Embeddings, least: int) -> None:
    if len(known) < least:
        skipped.tell(known.skipped)
        raise ImageError(f"Expected at least {least} readable photos; got {len(known)}.")
