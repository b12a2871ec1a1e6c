"""The rows of the study: quantisers and codebook sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log2
from typing import Any

from simvq_audio.errors import ConfigError

SIZES = (1024, 4096, 8192, 65_536, 262_144)
_ORDER = {8192: 0, 4096: 1, 65_536: 2, 1024: 3, 262_144: 4}
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
        group: "main", "variant", "long" or "reference"; tables show them apart.
        quantizer: codebook size -> the table [model.quantizer], but for the latent's width.
        sizes: of the codebook.
        fast: the quantiser's fast parameters learn at 40 times the learning rate.
        cold: quantised from the first step on, at the quantiser's own initialisation; otherwise
            started from the latents after the unquantised steps.
        start: further settings of [quantizer_start].
        length: factor on the number of steps.
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

    def settings(self, codebook_size: int, latent_dim: int) -> Table:
        """The settings of this row in a ``TrainingConfig``, as nested plain values."""
        start = {"unquantized_steps": 0} if self.cold else self.start
        quantizer = dict(self.quantizer(codebook_size))
        # Residual VQ has the width in its stages.
        for table in quantizer.get("stages", [quantizer]):
            table["latent_dim"] = latent_dim
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


def _residual(size: int) -> Table:
    """Two stages near the square root of K, of moving averages."""
    bits = round(log2(size))
    sizes = [2 ** -(-bits // 2), 2 ** (bits // 2)]
    return {
        "kind": "residual",
        "stages": [{"kind": "ema", "codebook_size": stage} for stage in sizes],
    }


def _plain(kind: str) -> Callable[[int], Table]:
    """One table of entries: "vq" learns by its gradient, "ema" by moving averages."""
    return lambda size: {"kind": kind, "codebook_size": size}


def _factorised(size: int) -> Table:
    return {"kind": "factorised", "codebook_size": size, "code_dim": 8}


def _lfq(size: int) -> Table:
    share = 1.0 if size <= _LFQ_ALL_FRAMES_UP_TO else _LFQ_SHARE
    return {
        "codebook_size": size,
        "commitment_loss_weight": 0.25,
        "frac_per_sample_entropy": share,
    }


# Table 1 of the paper (arXiv 2309.15505) where it has the size; otherwise by its rule: at least 5
# levels in every dimension, and a product near K.
_FSQ_LEVELS = {
    64: (8, 8),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
    8192: (8, 8, 5, 5, 5),
    65_536: (8, 8, 8, 5, 5, 5),
    262_144: (8, 8, 8, 8, 8, 8),
}


def _fsq(size: int) -> Table:
    return {"kind": "fsq", "levels": list(_FSQ_LEVELS[size])}


_GAUSSIAN: Table = {"entries_from_latents": False}
_TWO = (8192, 65_536)

ROWS = {
    row.name: row
    for row in (
        Row("unquantized", "no quantiser", "reference", lambda size: {"codebook_size": 2}, (1,)),
        Row("simvq-cold", "SimVQ, the paper's start", "main", _simvq(), fast=False, cold=True),
        Row("simvq-cold-fast", "SimVQ, the paper's start, W at 40x", "main", _simvq(), cold=True),
        Row("vq-cold", "VQ, cold start", "main", _plain("vq"), fast=False, cold=True),
        Row("vq-cold-fast", "VQ, cold start, table at 40x", "main", _plain("vq"), cold=True),
        Row("simvq-covariance", "SimVQ, W from the covariance", "main", _simvq(), start=_GAUSSIAN),
        Row("simvq-latents", "SimVQ, C from the latents", "main", _simvq()),
        Row("vq", "VQ, from the latents, table at 40x", "main", _plain("vq")),
        Row("vq-ema", "VQ, EMA and replacement", "main", _plain("ema")),
        Row("rvq", "residual VQ, two stages", "main", _residual),
        Row("factorised", "factorised VQ, 8 dimensions, l2", "main", _factorised, fast=False),
        Row(
            "factorised-cold",
            "factorised VQ, 8 dimensions, l2, cold start",
            "main",
            _factorised,
            fast=False,
            cold=True,
        ),
        Row("fsq", "FSQ", "main", _fsq),
        Row("lfq", "LFQ", "main", _package("LFQ", _lfq)),
        Row(
            "package-simvq",
            "SimVQ of the package",
            "main",
            _package("SimVQ", lambda size: {"codebook_size": size}, fast=True),
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
            "C from the latents, W and C at 40x",
            "variant",
            _simvq(basis="fast"),
            _TWO,
        ),
        Row(
            "simvq-trained-slow",
            "C from the latents, W at 40x, C at 1x",
            "variant",
            _simvq(basis="trained"),
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
            "C from the latents, W at 1x",
            "variant",
            _simvq(),
            _TWO,
            fast=False,
        ),
        *(
            Row(
                f"{name}-long",
                f"{title}, 8 times as long",
                "long",
                quantizer,
                _TWO,
                fast=fast,
                cold=cold,
                length=8,
            )
            for name, title, quantizer, fast, cold in (
                ("simvq-cold", "SimVQ, the paper's start", _simvq(), False, True),
                ("simvq-cold-fast", "SimVQ, the paper's start, W at 40x", _simvq(), True, True),
                ("vq-cold", "VQ, cold start", _plain("vq"), False, True),
                ("vq-cold-fast", "VQ, cold start, table at 40x", _plain("vq"), True, True),
                ("simvq-latents", "SimVQ, C from the latents", _simvq(), True, False),
                ("vq-ema", "VQ, EMA and replacement", _plain("ema"), True, False),
                ("rvq", "residual VQ, two stages", _residual, True, False),
            )
        ),
    )
}

# What the page's summary compares, and so what is run first: rows, codebook sizes, seeds.
CLAIMED = (
    "vq-cold-fast",
    "simvq-cold-fast",
    "simvq-latents",
    "simvq-trained-slow",
    "vq-cold",
    "simvq-cold",
    "simvq-trained-basis",
)
_OTHERS = ("factorised", "fsq", "vq", "vq-ema", "rvq", "factorised-cold", "simvq-means")
_STAGES: tuple[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    (CLAIMED, (8192,), (0, 1, 2)),
    (_OTHERS, (8192,), (0,)),
    (CLAIMED, (4096,), (0,)),
    (("unquantized",), (1,), (0,)),
    (_OTHERS, (8192,), (1, 2)),
    (CLAIMED, (65_536,), (0, 1, 2)),
    (_OTHERS, (65_536,), (0, 1, 2)),
    (("simvq-cold-long", "vq-cold-fast-long", "simvq-cold-fast-long"), (8192,), (0,)),
)


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


def plan(rows: list[str] | None, sizes: list[int] | None, seeds: list[int]) -> list[Run]:
    """The runs, the most wanted first, so that an interrupted study is useful.

    Args:
        rows: by name; all if None.
        sizes: of the codebook; all if None. Rows without any of them are left out.

    Raises:
        ConfigError: a row is unknown, or there is nothing to run.
    """
    chosen = [find_row(name) for name in (rows or ROWS)]
    wanted = {
        Run(row.name, size, seed)
        for row in chosen
        for size in row.sizes
        # A row without codes has one size, which is always included.
        if sizes is None or size in sizes or row.sizes == (1,)
        for seed in seeds
    }
    if not wanted:
        raise ConfigError("none of these rows has any of these codebook sizes")
    first = [
        Run(name, size, seed)
        for names, stage_sizes, stage_seeds in _STAGES
        for size in stage_sizes
        for seed in stage_seeds
        for name in names
    ]
    rest = sorted(
        wanted,
        key=lambda run: (
            find_row(run.row).length,
            run.seed,
            _ORDER.get(run.codebook_size, -1),
            list(ROWS).index(run.row),
        ),
    )
    return [run for run in dict.fromkeys([*first, *rest]) if run in wanted]
