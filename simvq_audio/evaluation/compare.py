"""Comparison of several codecs by their decoded files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simvq_audio.audio import AudioReader
from simvq_audio.errors import AudioError
from simvq_audio.evaluation.alignment import AlignmentError, Delay, estimate_delay
from simvq_audio.evaluation.ledger import Ledger
from simvq_audio.evaluation.pairing import pair
from simvq_audio.evaluation.protocol import ScoringProtocol
from simvq_audio.evaluation.provenance import package_versions
from simvq_audio.evaluation.recordings import Recordings, find_recordings
from simvq_audio.evaluation.results import Report, SystemResult
from simvq_audio.evaluation.runner import EvaluationOptions, digests_of, make_report, score_jobs
from simvq_audio.evaluation.scoring import ScoringJob, load_pair

# Recordings for estimating a codec's delay.
_DELAY_RECORDINGS = 24
# Share of recordings that must agree on a constant delay.
_AGREEMENT = 0.5
# Name of such a failure in reports.
DELAY_FAILURE = "(delay)"


def compare_systems(
    folder: Path,
    systems: Mapping[str, Path],
    kbps: Mapping[str, float],
    settings: EvaluationOptions,
) -> Report:
    """Score decoded files against the recordings that they were made of.

    Files are paired as ``pairing.pair`` says; those left over, on either side, are
    failures of their system. The constant delay of each system is removed.

    Args:
        folder: of the recordings.
        systems: folder of decoded files, by name of the system.
        kbps: known bit rates, by name of the system.

    Raises:
        AudioError: a folder is not there or holds no recording.
        MissingExtraError: a metric needs a package that is not installed.
        OSError: ``settings.out`` cannot be written.
    """
    recordings = find_recordings(folder)
    decoded = {name: find_recordings(place) for name, place in systems.items()}
    settings.check_packages()
    with settings.open_ledger() as ledger:
        taken = settings.select(recordings)
        paths = {name: taken.path(name) for name in taken.names}
        reference_digests, unreadable = digests_of(paths)
        contents = {paths[name]: digest for name, digest in reference_digests.items()}
        jobs: dict[str, list[ScoringJob]] = {}
        failures: dict[str, dict[str, str]] = {}
        with settings.progress("finding delays", len(systems)) as advance:
            for name in systems:
                own, failures[name] = _jobs(name, recordings, taken, decoded[name], settings)
                own = [job for job in own if job.name not in unreadable]
                digests, lost = digests_of({job.name: job.decoded for job in own})
                failures[name] |= unreadable | lost
                own = [job for job in own if job.name in digests]
                contents |= {job.decoded: digests[job.name] for job in own}
                jobs[name], doubt = _without_delay(own, contents, settings.protocol, ledger)
                failures[name] |= doubt
                advance(1)
        scored = score_jobs(
            [job for own in jobs.values() for job in own], contents, settings, ledger
        )
    results = []
    for name in systems:
        found = scored.get(name)
        of = failures[name] | (found.failures if found else {})
        results.append(
            SystemResult(
                name,
                found.files if found else (),
                kbps.get(name),
                {},
                None,
                dict(sorted(of.items())),
                jobs[name][0].delay if jobs[name] else 0,
                jobs[name][0].delay_rate if jobs[name] else None,
            )
        )
    return make_report(results, settings)


def _jobs(
    system: str,
    recordings: Recordings,
    taken: Recordings,
    decoded: Recordings,
    settings: EvaluationOptions,
) -> tuple[list[ScoringJob], dict[str, str]]:
    """The jobs of a system, and why other files are not scored."""
    # All recordings are paired, also if only some are scored, to find files without a partner.
    paired = pair(recordings.names, decoded.names)
    left_out = set(recordings.names) - set(taken.names)
    failures = recordings.failures | decoded.failures
    failures |= {name: why for name, why in paired.failures.items() if name not in left_out}
    jobs = [
        ScoringJob(
            system,
            name,
            recordings.path(name),
            decoded.path(paired.decoded[name]),
            tuple(metric.name for metric in settings.metrics),
        )
        for name in taken.names
        if name in paired.decoded
    ]
    return jobs, failures


def _without_delay(
    jobs: Sequence[ScoringJob],
    contents: Mapping[str, str],
    protocol: ScoringProtocol,
    ledger: Ledger,
) -> tuple[list[ScoringJob], dict[str, str]]:
    """The jobs, with the delay of their system, and a failure if there is no constant delay."""
    step = max(1, len(jobs) // _DELAY_RECORDINGS)
    chosen, rate = _of_one_rate(jobs[::step][:_DELAY_RECORDINGS])
    if rate is None:
        return list(jobs), {}
    key = {
        "kind": "delay",
        "pairs": [[contents[job.reference], contents[job.decoded]] for job in chosen],
        "protocol": protocol.name,
        "versions": package_versions(()),
    }
    found = ledger.find(key)
    if found is None:
        delay = _delay(chosen, rate, protocol)
        found = None if delay is None else [delay.samples, delay.agreement]
        if found is None:
            return list(jobs), {
                DELAY_FAILURE: "could not be found, since no recording has sound in both the "
                "original and the decoded file; none was removed"
            }
        ledger.note(key, found, system=jobs[0].system, kind="delay")
    samples, agreement = found
    if agreement < _AGREEMENT:
        return list(jobs), {
            DELAY_FAILURE: f"is not constant: {100 * agreement:.0f} % of {len(chosen)} recordings "
            "agree on one; none was removed"
        }
    return [replace(job, delay=samples, delay_rate=rate) for job in jobs], {}


def _of_one_rate(jobs: Sequence[ScoringJob]) -> tuple[list[ScoringJob], int | None]:
    """Jobs of the most frequent sample rate; recordings that cannot be read fail later."""
    rates = {}
    for job in jobs:
        try:
            with AudioReader(job.reference) as reader:
                rates[job] = reader.sample_rate
        except AudioError:
            continue
    if not rates:
        return [], None
    rate = Counter(rates.values()).most_common(1)[0][0]
    return [job for job in rates if rates[job] == rate], rate


def _delay(jobs: Sequence[ScoringJob], rate: int, protocol: ScoringProtocol) -> Delay | None:
    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for job in jobs:
            try:
                reference, decoded, _ = load_pair(job, protocol)
            # Reported when it is scored.
            except AudioError:
                continue
            yield reference[0], decoded[0]

    try:
        return estimate_delay(pairs(), rate)
    except AlignmentError:
        return None
