"""The rows of the study: quantisers and codebook sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log2
from typing import Any

from simvq_audio.errors import ConfigError

SIZES = (1024, 8192, 65_536, 262_144)
_ORDER = {8192: 0, 65_536: 1, 1024: 2, 262_144: 3}
# Factor on the learning rate of W or the table in "fast" rows.
_FAST = 40.0
# Full probabilities of 450 frames over 65 536 codes take 1.5 s a step; the package can compute
# the entropies over a part of the frames.
_LFQ_ALL_FRAMES_UP_TO = 8192
_LFQ_SHARE = 0.25

Table = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One quantiser.

    Attributes:
        name: on the command line and in file names.
        title: in tables.
        group: "main", "variant" or "reference"; tables show them apart.
        quantizer: codebook size -> the table [model.quantizer], but for the latent's width.
        sizes: of the codebook.
        fast: the quantiser's fast parameters learn at 40 times the learning rate.
        cold: quantised from the first step on, at the quantiser's own initialisation; otherwise
            started from the latents after the unquantised steps.
        start: further settings of [quantizer_start].
        length: factor on the number of steps.
        late_sizes: codebook sizes that are slow on a CPU: they are run last, by default with one
            seed.
    """

    name: str
    title: str
    group: str
    quantizer: Callable[[int], Table]
    sizes: tuple[int, ...] = SIZES
    fast: bool = True
    cold: bool = False
    start: Table = field(default_factory=lambda: {"entries_from_latents": True})
    length: int = 1
    late_sizes: tuple[int, ...] = ()

    def settings(self, codebook_size: int, latent_dim: int) -> Table:
        """The settings of this row in a ``TrainingConfig``, as nested plain values."""
        start = {"unquantized_steps": 0} if self.cold else self.start
        quantizer = {"latent_dim": latent_dim, **self.quantizer(codebook_size)}
        return {
            "model": {"quantizer": quantizer},
            "optimizer": {"quantizer_factor": _FAST if self.fast else 1.0},
            "quantizer_start": start,
        }


def _simvq(**options: Any) -> Callable[[int], Table]:
    return lambda size: {"kind": "simvq", "codebook_size": size, **options}


def _package(
    name: str, options: Callable[[int], Table], fast: bool = False
) -> Callable[[int], Table]:
    """A quantiser of vector-quantize-pytorch with one codebook."""
    return lambda size: {
        "kind": "package",
        "name": name,
        "codebook_sizes": [size],
        "options": options(size),
        "fast": fast,
    }


def _table(size: int) -> Table:
    """``VectorQuantize`` with a table that learns by its gradient."""
    return {
        "codebook_size": size,
        "learnable_codebook": True,
        "ema_update": False,
        "rotation_trick": False,
        "commitment_weight": 0.25,
    }


def _averages(size: int) -> Table:
    """Moving averages; the start sets which entries are replaced; any threshold enables it."""
    return {
        "codebook_size": size,
        "rotation_trick": False,
        "commitment_weight": 0.25,
        "decay": 0.95,
        "threshold_ema_dead_code": 1e-3,
        "eps": 1e-7,
    }


def _residual(size: int) -> Table:
    """Two stages near the square root of K."""
    bits = round(log2(size))
    sizes = [2 ** -(-bits // 2), 2 ** (bits // 2)]
    options = {**_averages(size), "codebook_size": sizes}
    return {"kind": "package", "name": "ResidualVQ", "codebook_sizes": sizes, "options": options}


def _lfq(size: int) -> Table:
    share = 1.0 if size <= _LFQ_ALL_FRAMES_UP_TO else _LFQ_SHARE
    return {
        "codebook_size": size,
        "commitment_loss_weight": 0.25,
        "frac_per_sample_entropy": share,
    }


def fsq_levels(codebook_size: int) -> list[int]:
    """Levels whose product is the codebook's size, a power of two from 64 on: 8s, then 4s."""
    bits = round(log2(codebook_size))
    fours = {0: 0, 1: 2, 2: 1}[bits % 3]
    return [8] * ((bits - 2 * fours) // 3) + [4] * fours


_GAUSSIAN: Table = {"entries_from_latents": False}
_TWO = (8192, 65_536)

ROWS = {
    row.name: row
    for row in (
        Row("unquantized", "no quantiser", "reference", lambda size: {"codebook_size": 2}, (1,)),
        Row("simvq-cold", "SimVQ, the paper's start", "main", _simvq(), fast=False, cold=True),
        Row("simvq-covariance", "SimVQ, W from the covariance", "main", _simvq(), start=_GAUSSIAN),
        Row("simvq-latents", "SimVQ, C from the latents", "main", _simvq()),
        Row(
            "vq-cold",
            "VQ, learnt table, cold start",
            "main",
            _package("VectorQuantize", _table),
            (1024, 8192, 65_536),
            cold=True,
            late_sizes=(65_536,),
        ),
        Row(
            "vq",
            "VQ, learnt table",
            "main",
            _package("VectorQuantize", _table, fast=True),
            late_sizes=(262_144,),
        ),
        Row(
            "vq-ema",
            "VQ, EMA and replacement",
            "main",
            _package("VectorQuantize", _averages),
            late_sizes=(262_144,),
        ),
        Row("rvq", "residual VQ, two stages", "main", _residual),
        Row("fsq", "FSQ", "main", _package("FSQ", lambda size: {"levels": fsq_levels(size)})),
        Row("lfq", "LFQ", "main", _package("LFQ", _lfq), late_sizes=(262_144,)),
        Row(
            "package-simvq",
            "SimVQ of the package",
            "main",
            _package("SimVQ", lambda size: {"codebook_size": size}, fast=True),
            late_sizes=(262_144,),
        ),
        Row(
            "simvq-means",
            "C from the latents, moved by k-means",
            "variant",
            _simvq(),
            _TWO,
            start={"entries_from_latents": True, "kmeans_rounds": 8},
        ),
        Row(
            "simvq-no-bias",
            "C from the latents, W without bias",
            "variant",
            _simvq(bias=False),
            _TWO,
        ),
        Row(
            "simvq-trained-basis",
            "C from the latents, C learns too",
            "variant",
            _simvq(basis="fast"),
            _TWO,
        ),
        Row(
            "simvq-rotation",
            "C from the latents, rotation trick",
            "variant",
            _simvq(rotation=True),
            _TWO,
        ),
        Row(
            "simvq-slow",
            "C from the latents, W at the common learning rate",
            "variant",
            _simvq(),
            _TWO,
            fast=False,
        ),
        Row(
            "simvq-cold-fast",
            "the paper's start, W at 40 times the learning rate",
            "variant",
            _simvq(),
            _TWO,
            cold=True,
        ),
        Row(
            "simvq-cold-long",
            "the paper's start, 8 times as long",
            "variant",
            _simvq(),
            (8192,),
            fast=False,
            cold=True,
            length=8,
            late_sizes=(8192,),
        ),
        Row(
            "vq-cold-long",
            "VQ, learnt table, cold start, 8 times as long",
            "variant",
            _package("VectorQuantize", _table),
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
    """The runs, seed by seed, so that an interrupted study is useful.

    The slow ones (``Row.late_sizes``) come after the second seed, for the first of ``late_seeds``
    and so on.

    Args:
        rows: by name; all if None.
        sizes: of the codebook; all if None. Rows without any of them are left out.
        late_seeds: seeds of the slow runs; the first of ``seeds`` if None.

    Raises:
        ConfigError: a row is unknown, or there is nothing to run.
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
    """One seed: main rows and common codebook sizes first."""
    runs = [
        (row.group == "variant", _ORDER.get(size, -1), Run(row.name, size, seed))
        for row in rows
        for size in row.sizes
        # A row without codes has one size, which is always included.
        if (sizes is None or size in sizes or row.sizes == (1,))
        and (size in row.late_sizes) == slow
    ]
    return [run for *_, run in sorted(runs, key=lambda item: item[:2])]
