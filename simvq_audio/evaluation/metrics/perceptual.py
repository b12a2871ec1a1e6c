"""PESQ and STOI: standard predictions of quality and of intelligibility."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from typing import ClassVar

import numpy as np

from simvq_audio.errors import needs_extra
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.guards import audible, finite
from simvq_audio.evaluation.trial import Trial

# The package pesq has room for 50 utterances, which 20 s cannot exceed. With more it writes beyond
# its arrays and often crashes.
_SAFE_SECONDS = 20.0
_CHILD = """
import io, sys, numpy, pesq
rate, mode = sys.argv[1:]
pair = numpy.load(io.BytesIO(sys.stdin.buffer.read()))
print(pesq.pesq(int(rate), *pair, mode, on_error=pesq.PesqError.RETURN_VALUES))
"""


class _Pesq(Metric):
    """A mode of the package pesq."""

    higher_is_better = True
    packages = ("pesq",)
    _mode: ClassVar[str]

    def __init__(self) -> None:
        with needs_extra("eval"):
            import pesq
        self._pesq = pesq

    def score(self, trial: Trial) -> float:
        """About 1 to 4.6, as mean opinion scores of listeners."""
        pair = np.stack(audible(*trial.at(self.sample_rate)))
        call = self._call if trial.duration <= _SAFE_SECONDS else self._call_in_child
        value = call(pair)
        # Errors are negative numbers; scores begin at about 1.
        if value == self._pesq.PesqError.NO_UTTERANCES_DETECTED:
            raise UnscorableError("PESQ finds no utterance")
        if value == self._pesq.PesqError.BUFFER_TOO_SHORT:
            raise UnscorableError("too short for PESQ, which needs a quarter of a second")
        if value < 0:
            raise UnscorableError(f"PESQ fails with its error {value:g}")
        return finite(value)

    def _call(self, pair: np.ndarray) -> float:
        on_error = self._pesq.PesqError.RETURN_VALUES
        return self._pesq.pesq(self.sample_rate, *pair, self._mode, on_error=on_error)

    def _call_in_child(self, pair: np.ndarray) -> float:
        """The same in another process, which may crash."""
        data = io.BytesIO()
        np.save(data, pair)
        command = [sys.executable, "-c", _CHILD, str(self.sample_rate), self._mode]
        done = subprocess.run(command, input=data.getvalue(), capture_output=True)
        if done.returncode < 0:
            raise UnscorableError(
                "PESQ ended abnormally, as it does with more than 50 utterances; cut the recording"
            )
        if done.returncode:
            raise RuntimeError(f"PESQ's process failed: {done.stderr.decode(errors='replace')}")
        return float(done.stdout.split()[-1])


class PesqWb(_Pesq):
    """PESQ of wide-band speech, as MOS-LQO."""

    name = "pesq_wb"
    title = "PESQ-wb"
    source = "ITU-T P.862.2, by the package pesq"
    sample_rate = 16_000
    _mode = "wb"


class PesqNb(_Pesq):
    """PESQ of telephone speech, as MOS-LQO (P.862.1)."""

    name = "pesq_nb"
    title = "PESQ-nb"
    source = "ITU-T P.862 and P.862.1, by the package pesq"
    sample_rate = 8_000
    _mode = "nb"


class _Stoi(Metric):
    """A variant of the package pystoi.

    It gets the recording's rate and converts to STOI's 10 kHz itself.
    """

    higher_is_better = True
    packages = ("pystoi",)
    _extended: ClassVar[bool]

    def __init__(self) -> None:
        with needs_extra("eval"):
            from pystoi import stoi
        self._stoi = stoi

    def score(self, trial: Trial) -> float:
        """Up to 1."""
        reference, decoded = audible(*trial.at(self.sample_rate))
        # 30 frames of 256 samples at 10 kHz, half overlapping, are what one value is made of;
        # what is far shorter makes pystoi stop inside numpy.
        if trial.duration < 0.3:
            raise UnscorableError(_TOO_SHORT)
        with warnings.catch_warnings():
            # Without a score, pystoi warns and returns 1e-5.
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return finite(
                    self._stoi(reference, decoded, trial.sample_rate, extended=self._extended)
                )
            except RuntimeWarning:
                raise UnscorableError(_TOO_SHORT) from None


_TOO_SHORT = "too short for STOI, which needs 0.4 s that are not silent"


class Stoi(_Stoi):
    """Short-time objective intelligibility."""

    name = "stoi"
    title = "STOI"
    source = "Taal et al. 2011, doi 10.1109/TASL.2011.2114881, by the package pystoi"
    _extended = False


class Estoi(_Stoi):
    """Extended short-time objective intelligibility."""

    name = "estoi"
    title = "ESTOI"
    source = "Jensen and Taal 2016, doi 10.1109/TASLP.2016.2585878, by the package pystoi"
    _extended = True
