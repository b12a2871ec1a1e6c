"""All metrics: those of this package, and those that others register."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.metric import ENTRY_POINT_GROUP, Metric
from simvq_audio.evaluation.metrics.codes import (
    DecodeSpeed,
    EncodeSpeed,
    FileRate,
    PayloadRate,
    Stability,
)
from simvq_audio.evaluation.metrics.neural import (
    DistillMos,
    DnsmosBackground,
    DnsmosOverall,
    DnsmosP808,
    DnsmosSignal,
    SpeakerSimilarity,
    SpeakerSimilarityWavlm,
    Utmos,
    Visqol,
)
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqNb, PesqWb, Stoi
from simvq_audio.evaluation.metrics.pitch import (
    F0Error,
    F0RmseCrepe,
    GrossPitchError,
    VoicedKept,
    VoicingF1,
    VoicingF1Crepe,
)
from simvq_audio.evaluation.metrics.spectral import (
    Lsd0To4,
    Lsd4To8,
    Lsd8To12,
    MelDistance,
    MultiResolutionStft,
    SiSdr,
)

_DEFAULT: tuple[type[Metric], ...] = (
    PesqWb,
    PesqNb,
    Stoi,
    Estoi,
    MelDistance,
    Lsd0To4,
    Lsd4To8,
    Lsd8To12,
    MultiResolutionStft,
    SiSdr,
    F0Error,
    GrossPitchError,
    VoicedKept,
    VoicingF1,
    PayloadRate,
    FileRate,
    EncodeSpeed,
    DecodeSpeed,
    Stability,
)
# Those that need another extra, and slow networks.
_OPTIONAL: tuple[type[Metric], ...] = (
    F0RmseCrepe,
    VoicingF1Crepe,
    DnsmosOverall,
    DnsmosSignal,
    DnsmosBackground,
    DnsmosP808,
    Visqol,
    Utmos,
    SpeakerSimilarity,
    SpeakerSimilarityWavlm,
    DistillMos,
)


def built_in_metrics() -> tuple[type[Metric], ...]:
    """Every metric of this package, in the order of reports; the default ones first."""
    return _DEFAULT + _OPTIONAL


def default_metric_names() -> tuple[str, ...]:
    """Names of the metrics that need only the extra ``eval``."""
    return tuple(metric.name for metric in _DEFAULT)


def metric_names() -> tuple[str, ...]:
    """All names: this package's metrics, then registered ones, sorted."""
    ours = tuple(metric.name for metric in built_in_metrics())
    return ours + tuple(sorted({point.name for point in _entry_points()} - {*ours}))


def find_metrics(names: Iterable[str]) -> list[type[Metric]]:
    """The metrics of these names, in this order, each once.

    Args:
        names: of metrics; "default" stands for ``default_metric_names()``, "all" for
            ``metric_names()``. Other packages register theirs by an entry point of the group
            ``simvq_audio.metrics``, named as the metric, whose object is the class.

    Raises:
        ConfigError: a name is unknown or ambiguous, or the package that registers the metric is
            broken.
    """
    ours = {metric.name: metric for metric in built_in_metrics()}
    theirs: dict[str, list[EntryPoint]] = {}
    for point in _entry_points():
        theirs.setdefault(point.name, []).append(point)
    asked: dict[str, None] = {}
    for name in names:
        words = {"default": default_metric_names, "all": metric_names}
        asked.update(dict.fromkeys(words[name]() if name in words else (name,)))
    return [_find(name, ours.get(name), theirs.get(name, [])) for name in asked]


def _find(name: str, ours: type[Metric] | None, theirs: list[EntryPoint]) -> type[Metric]:
    owners = ["simvq-audio"] * (ours is not None) + [_package(point) for point in theirs]
    if not owners:
        raise ConfigError(
            f"there is no metric {name}; there are {', '.join(metric_names())}, and the words "
            "default and all"
        )
    if len(owners) > 1:
        raise ConfigError(
            f"the metric {name} is registered by {' and by '.join(owners)}; uninstall all but one"
        )
    return ours or _load(theirs[0])


def _load(point: EntryPoint) -> type[Metric]:
    problem = f"the package {_package(point)} registers the metric {point.name}, but"
    try:
        found = point.load()
    # Another package's module may raise anything on import; the message names the package.
    except Exception as error:
        raise ConfigError(
            f"{problem} {point.value} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise ConfigError(f"{problem} {point.value} is not a subclass of Metric")
    for attribute in ("name", "title", "source", "higher_is_better"):
        if not hasattr(found, attribute):
            raise ConfigError(f"{problem} {point.value} has no {attribute}")
    if found.name != point.name:
        raise ConfigError(f"{problem} {point.value} calls itself {found.name}")
    return found


def _entry_points() -> Iterable[EntryPoint]:
    return entry_points(group=ENTRY_POINT_GROUP)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
