"""Evaluation of this package's codec."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simvq_audio.bitstream import Codes
from simvq_audio.evaluation.codebook_use import CodeCounter
from simvq_audio.evaluation.provenance import package_versions
from simvq_audio.evaluation.recordings import find_recordings
from simvq_audio.evaluation.results import CodebookUse, Report, SystemResult, folder_of
from simvq_audio.evaluation.round_trip import CodedFile, RecordingCoder
from simvq_audio.evaluation.runner import EvaluationOptions, digests_of, make_report, score_jobs
from simvq_audio.evaluation.scoring import ScoringJob

if TYPE_CHECKING:
    from simvq_audio.codec import Codec


def evaluate_codec(
    load_codec: Callable[[], Codec], folder: Path, settings: EvaluationOptions
) -> Report:
    """Code, decode and score every recording below a folder.

    The recordings are first coded one after the other, with all threads, so that the times are
    those of coding; then they are scored in parallel. Recordings that cannot be read, coded or
    scored are failures in the report.

    Args:
        load_codec: called after recordings have been found.

    Raises:
        AudioError: the folder is not there or holds no recording.
        MissingExtraError: a metric needs a package that is not installed.
        OSError: ``settings.out`` cannot be written.
    """
    recordings = settings.select(find_recordings(folder))
    settings.check_packages()
    codec = load_codec()
    paths = {name: recordings.path(name) for name in recordings.names}
    with settings.open_ledger() as ledger, _workplace(settings.out) as workplace:
        digests, unreadable = digests_of(paths)
        coder = RecordingCoder(
            codec,
            workplace,
            ledger,
            package_versions(()),
            reencode=any(metric.needs_reencoding for metric in settings.metrics),
        )
        with settings.progress("coding", len(digests)) as advance:
            coded, not_coded = coder.code_all(recordings, digests, advance)
        jobs = [
            ScoringJob(
                codec.name,
                name,
                paths[name],
                file.decoded,
                tuple(metric.name for metric in settings.metrics),
                coded=file,
                keeps_decoded=settings.out is not None,
            )
            for name, file in coded.items()
        ]
        contents = {paths[name]: digest for name, digest in digests.items()}
        contents |= {file.decoded: file.decoded_digest for file in coded.values()}
        scored = score_jobs(jobs, contents, settings, ledger).get(codec.name)
        kbps, codebook = _rate_and_use(coded, codec.codebook_size)
    failures = recordings.failures | unreadable | not_coded
    if scored is not None:
        failures |= scored.failures
    system = SystemResult(
        codec.name,
        () if scored is None else scored.files,
        kbps,
        codebook,
        codec.model_id,
        dict(sorted(failures.items())),
    )
    return make_report((system,), settings)


@contextmanager
def _workplace(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _rate_and_use(
    coded: Mapping[str, CodedFile], codebook_size: int | tuple[int, ...]
) -> tuple[float | None, dict[str, CodebookUse]]:
    """Bits of all codes over the duration of all channels, in kbit/s; and the use of the codebook.

    With several codebooks, use is not counted.
    """
    counter = CodeCounter(codebook_size) if isinstance(codebook_size, int) else None
    bits = seconds = 0.0
    for name, file in coded.items():
        codes = Codes.load(file.codes)
        if counter is not None:
            counter.add(folder_of(name), codes.indices)
        bits += codes.payload_bits
        seconds += codes.duration * codes.channels
    folders = sorted({folder_of(name) for name in coded})
    use = {} if counter is None else counter.use(folders)
    return bits / seconds / 1000 if seconds else None, use
