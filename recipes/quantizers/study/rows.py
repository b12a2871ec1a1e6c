"""The rows of the study: which quantisers are compared, at which sizes of codebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simvq_audio.errors import ConfigError
from study.bottleneck import Bottleneck, Unquantized
from study.ours import Simvq
from study.package import PackageSimvq, Projected, Residual, Table

SIZES = (1024, 8192, 65_536, 262_144)
_ORDER = {8192: 0, 65_536: 1, 1024: 2, 262_144: 3}


@dataclass(frozen=True)
class Row:
    """One quantiser.

    Attributes:
        name: on the command line and in file names.
        title: for people.
        group: "main", "variant" or "reference"; tables show them apart.
        make: (codebook_size, latent_dim) -> the quantiser.
        sizes: of the codebook.
        cold: starts from scratch and is quantised from the first step on, at the quantiser's own
            initialisation; otherwise from the shared unquantised steps and their latents.
        length: steps are so many times those of the other rows.
        late_sizes: codebook sizes that are so slow on a CPU that they are run last, and for one
            seed alone unless that is asked for.
    """

    name: str
    title: str
    group: str
    make: Callable[[int, int], Bottleneck]
    sizes: tuple[int, ...] = SIZES
    cold: bool = False
    length: int = 1
    late_sizes: tuple[int, ...] = ()


_TWO = (8192, 65_536)

ROWS = {
    row.name: row
    for row in (
        Row("unquantized", "no quantiser", "reference", lambda k, d: Unquantized(), (1,)),
        Row(
            "simvq-cold",
            "SimVQ, the paper's start",
            "main",
            lambda k, d: Simvq(k, d, basis_from_latents=False, fast=False),
            cold=True,
        ),
        Row(
            "simvq-covariance",
            "SimVQ, W from the covariance",
            "main",
            lambda k, d: Simvq(k, d, basis_from_latents=False),
        ),
        Row("simvq-latents", "SimVQ, C from the latents", "main", Simvq),
        Row(
            "vq-cold",
            "VQ, learnt table, cold start",
            "main",
            lambda k, d: Table(k, d, ema=False),
            (1024, 8192, 65_536),
            cold=True,
            late_sizes=(65_536,),
        ),
        Row(
            "vq",
            "VQ, learnt table",
            "main",
            lambda k, d: Table(k, d, ema=False, fast=True),
            late_sizes=(262_144,),
        ),
        Row(
            "vq-ema",
            "VQ, EMA and replacement",
            "main",
            lambda k, d: Table(k, d, ema=True),
            late_sizes=(262_144,),
        ),
        Row("rvq", "residual VQ, two stages", "main", Residual),
        Row("fsq", "FSQ", "main", lambda k, d: Projected(k, d, kind="fsq")),
        Row(
            "lfq",
            "LFQ",
            "main",
            lambda k, d: Projected(k, d, kind="lfq"),
            late_sizes=(262_144,),
        ),
        Row(
            "package-simvq",
            "SimVQ of the package",
            "main",
            PackageSimvq,
            late_sizes=(262_144,),
        ),
        Row(
            "simvq-means",
            "C from the latents, moved by k-means",
            "variant",
            lambda k, d: Simvq(k, d, kmeans_rounds=8),
            _TWO,
        ),
        Row(
            "simvq-no-bias",
            "C from the latents, W without bias",
            "variant",
            lambda k, d: Simvq(k, d, bias=False),
            _TWO,
        ),
        Row(
            "simvq-trained-basis",
            "C from the latents, C learns too",
            "variant",
            lambda k, d: Simvq(k, d, trained_basis=True),
            _TWO,
        ),
        Row(
            "simvq-rotation",
            "C from the latents, rotation trick",
            "variant",
            lambda k, d: Simvq(k, d, rotation=True),
            _TWO,
        ),
        Row(
            "simvq-slow",
            "C from the latents, W at the common learning rate",
            "variant",
            lambda k, d: Simvq(k, d, fast=False),
            _TWO,
        ),
        Row(
            "simvq-cold-fast",
            "the paper's start, W at 40 times the learning rate",
            "variant",
            lambda k, d: Simvq(k, d, basis_from_latents=False),
            _TWO,
            cold=True,
        ),
        Row(
            "simvq-cold-long",
            "the paper's start, 8 times as long",
            "variant",
            lambda k, d: Simvq(k, d, basis_from_latents=False, fast=False),
            (8192,),
            cold=True,
            length=8,
            late_sizes=(8192,),
        ),
        Row(
            "vq-cold-long",
            "VQ, learnt table, cold start, 8 times as long",
            "variant",
            lambda k, d: Table(k, d, ema=False),
            (8192,),
            cold=True,
            length=8,
            late_sizes=(8192,),
        ),
    )
}


@dataclass(frozen=True, order=True)
class Run:
    """One run: a row at a size of codebook, with a seed."""

    row: str
    codebook_size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row}-{self.codebook_size}-s{self.seed}"


def find_row(name: str) -> Row:
    """The row of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ROWS:
        raise ConfigError(f"there is no row {name!r}; rows: {', '.join(ROWS)}")
    return ROWS[name]


def plan(
    rows: list[str] | None,
    sizes: list[int] | None,
    seeds: list[int],
    *,
    late_seeds: list[int] | None = None,
) -> list[Run]:
    """The runs, in an order in which an interrupted study is of use: seed by seed.

    The slow ones (``Row.late_sizes``) come after the second seed, for the first of ``late_seeds``
    and so on.

    Args:
        rows: by name; all if None.
        sizes: of the codebook; all if None. A row without any of them has no run.
        late_seeds: seeds of the slow runs; the first of ``seeds`` if None.

    Raises:
        ConfigError: a row is unknown, or nothing is left to run.
    """
    chosen = [find_row(name) for name in (rows or ROWS)]
    late = seeds[:1] if late_seeds is None else late_seeds
    waves: list[list[Run]] = []
    for seed in seeds:
        waves.append(_wave(chosen, sizes, seed, slow=False))
    waves[min(2, len(waves)) : min(2, len(waves))] = [
        _wave(chosen, sizes, seed, slow=True) for seed in late
    ]
    runs = [run for wave in waves for run in wave]
    if not runs:
        raise ConfigError("none of these rows has any of these codebook sizes")
    return runs


def _wave(rows: list[Row], sizes: list[int] | None, seed: int, *, slow: bool) -> list[Run]:
    """One seed: main rows first, and among them the codebook sizes that are used most."""
    runs = [
        (row.group == "variant", _ORDER.get(size, -1), Run(row.name, size, seed))
        for row in rows
        for size in row.sizes
        # A row without codes has one size of its own, which no choice leaves out.
        if (sizes is None or size in sizes or row.sizes == (1,))
        and (size in row.late_sizes) == slow
    ]
    return [run for *_, run in sorted(runs, key=lambda item: item[:2])]
