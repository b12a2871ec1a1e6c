"""Networks that judge speech, each an extra, and the sources of their weights.

The packages of DNSMOS, ViSQOL, DistillMOS and Resemblyzer contain their weights. Those of UTMOS and
of WavLM's speaker model are loaded from a path that an environment variable names, else from the
Hugging Face hub or its cache.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np

from simvq_audio.errors import ModelError, needs_extra
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.guards import audible, finite
from simvq_audio.evaluation.trial import Trial

UTMOS_VARIABLE = "SIMVQ_AUDIO_UTMOS"
UTMOS_REPOSITORY = "Blinorot/UTMOS-PyTorch"
UTMOS_FILE = "utmos_state_dict.pt"
SPEAKER_VARIABLE = "SIMVQ_AUDIO_SPEAKER_MODEL"
SPEAKER_REPOSITORY = "microsoft/wavlm-base-plus-sv"

# Least duration for the networks' convolutions.
_SHORTEST_SECONDS = 0.1


def _at_least(seconds: float, trial: Trial) -> None:
    if trial.duration < seconds:
        raise UnscorableError(f"shorter than {seconds:g} s")


class _Dnsmos(Metric):
    """DNSMOS of the decoded recording, without reference."""

    higher_is_better = True
    source = "Reddy et al., arXiv 2010.15258 and 2110.01763, by the package speechmos"
    sample_rate = 16_000
    packages = ("speechmos", "onnxruntime")
    _key: ClassVar[str]

    def __init__(self) -> None:
        with needs_extra("dnsmos"):
            from speechmos import dnsmos
        self._dnsmos = dnsmos

    def score(self, trial: Trial) -> float:
        """About 1 to 5."""
        _, decoded = audible(*trial.at(self.sample_rate))
        _at_least(_SHORTEST_SECONDS, trial)
        scores = trial.once(
            "dnsmos", lambda: self._dnsmos.run(np.clip(decoded, -1, 1), self.sample_rate)
        )
        return finite(scores[self._key])


class DnsmosOverall(_Dnsmos):
    """Overall quality by P.835."""

    name = "dnsmos_ovrl"
    title = "DNSMOS overall"
    _key = "ovrl_mos"


class DnsmosSignal(_Dnsmos):
    """Quality of the speech by P.835."""

    name = "dnsmos_sig"
    title = "DNSMOS speech"
    _key = "sig_mos"


class DnsmosBackground(_Dnsmos):
    """Quality of the background by P.835."""

    name = "dnsmos_bak"
    title = "DNSMOS background"
    _key = "bak_mos"


class DnsmosP808(_Dnsmos):
    """Overall quality by P.808."""

    name = "dnsmos_p808"
    title = "DNSMOS P.808"
    _key = "p808_mos"


class Visqol(Metric):
    """ViSQOL in speech mode with the lattice network, as MOS-LQO."""

    name = "visqol"
    title = "ViSQOL"
    higher_is_better = True
    source = "Chinen et al., arXiv 2004.09584, speech mode, by the package visqol-python"
    sample_rate = 16_000
    packages = ("visqol-python", "ai-edge-litert")

    @classmethod
    def check(cls) -> None:
        """Without loading the network; see ``Metric.check``."""
        with needs_extra("visqol"):
            import visqol  # noqa: F401

    def __init__(self) -> None:
        with needs_extra("visqol"):
            import ai_edge_litert  # noqa: F401  otherwise visqol uses another mapping
            from visqol import VisqolApi
        self._api = VisqolApi()
        self._api.create(mode="speech", use_lattice_model=True)

    def score(self, trial: Trial) -> float:
        """1 to 5."""
        pair = audible(*trial.at(self.sample_rate))
        _at_least(1.0, trial)
        try:
            result = self._api.measure_from_arrays(
                *(x.astype(np.float64) for x in pair), self.sample_rate
            )
        except ValueError as error:
            raise UnscorableError(f"ViSQOL cannot score it: {error}") from error
        return finite(result.moslqo)


class Utmos(Metric):
    """UTMOS22 "strong" of the decoded recording, as the papers use it."""

    name = "utmos"
    title = "UTMOS"
    higher_is_better = True
    source = "Saeki et al., arXiv 2204.02152, by the package utmos-pytorch"
    sample_rate = 16_000
    packages = ("utmos-pytorch",)

    @classmethod
    def check(cls) -> None:
        """Without loading the network; see ``Metric.check``."""
        with needs_extra("utmos"):
            import utmos_pytorch  # noqa: F401
        cls._path()

    @staticmethod
    def _path() -> Path:
        return _weights("utmos", UTMOS_VARIABLE, UTMOS_REPOSITORY, UTMOS_FILE)

    def __init__(self) -> None:
        """Load the network.

        Raises:
            MissingExtraError: utmos-pytorch is not installed.
            ModelError: its weights are missing and cannot be downloaded, or are not its weights.
        """
        with needs_extra("utmos"):
            import torch
            from utmos_pytorch import UTMOSScoreTorch
            from utmos_pytorch.utmos_torch import UTMOSModel
        path = self._path()
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelError(f"{path} does not hold UTMOS' weights: {_line(error)}") from error
        with torch.device("meta"):
            expected = UTMOSModel().state_dict()
        # The package would initialise missing weights at random.
        if not isinstance(found, dict) or not expected.keys() <= found.keys():
            raise ModelError(f"{path} does not hold UTMOS' weights: it lacks some of them")
        self._network = UTMOSScoreTorch(str(path))

    def score(self, trial: Trial) -> float:
        """About 1 to 5."""
        import torch

        _, decoded = audible(*trial.at(self.sample_rate))
        _at_least(_SHORTEST_SECONDS, trial)
        return finite(self._network.score(torch.from_numpy(decoded)).item())


class DistillMos(Metric):
    """DistillMOS of the decoded recording, an opinion score learnt from a wav2vec 2.0 network."""

    name = "distillmos"
    title = "DistillMOS"
    higher_is_better = True
    source = "Stahl and Gamper, arXiv 2502.05356, by the package distillmos"
    sample_rate = 16_000
    packages = ("distillmos",)

    # The network sees crops of this many samples, at most a second apart, evenly over the
    # recording; the score is their mean.
    _CROP, _MAX_HOP = 122_880, 16_000
    _CROPS_AT_ONCE = 8

    @classmethod
    def check(cls) -> None:
        """Without loading the network; see ``Metric.check``."""
        with needs_extra("distillmos"):
            import distillmos  # noqa: F401

    def __init__(self) -> None:
        with needs_extra("distillmos"):
            from distillmos import ConvTransformerSQAModel
        # It prints to standard output, which is for results.
        with contextlib.redirect_stdout(io.StringIO()):
            self._network = ConvTransformerSQAModel(segmenting_in_forward=False).eval()

    def score(self, trial: Trial) -> float:
        """1 to 5."""
        import torch

        _, decoded = audible(*trial.at(self.sample_rate))
        _at_least(_SHORTEST_SECONDS, trial)
        decoded = np.pad(decoded, (0, max(0, self._CROP - len(decoded))))
        spare = len(decoded) - self._CROP
        count = 1 + -(-spare // self._MAX_HOP)
        starts = (np.linspace(0, 1, count) * spare).astype(int)
        scores = []
        # The package runs all crops in one batch, too large for long recordings.
        for some in np.array_split(starts, -(-len(starts) // self._CROPS_AT_ONCE)):
            crops = np.stack([decoded[start : start + self._CROP] for start in some])
            with torch.inference_mode():
                scores.append(self._network(torch.from_numpy(crops)).flatten())
        return finite(torch.cat(scores).mean().item())


class SpeakerSimilarity(Metric):
    """Cosine of Resemblyzer's speaker embeddings of the original and the decoded recording."""

    name = "speaker_similarity"
    title = "Speaker similarity"
    higher_is_better = True
    source = "GE2E, Wan et al., arXiv 1710.10467, by the package resemblyzer"
    sample_rate = 16_000
    packages = ("resemblyzer",)

    @classmethod
    def check(cls) -> None:
        """Without loading the network; see ``Metric.check``."""
        with needs_extra("speaker"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import resemblyzer  # noqa: F401

    def __init__(self) -> None:
        with needs_extra("speaker"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from resemblyzer import VoiceEncoder, preprocess_wav
        self._prepare = preprocess_wav
        self._encoder = VoiceEncoder("cpu", verbose=False)

    def score(self, trial: Trial) -> float:
        """0 to 1; 1 is the same voice. Pauses are removed first."""
        pair = audible(*trial.at(self.sample_rate))
        _at_least(0.5, trial)
        vectors = []
        for waveform, name in zip(pair, ("original", "decoded recording")):
            # Detecting speech works on 16-bit samples.
            speech = self._prepare(np.clip(waveform, -1, 1))
            if not speech.any():
                raise UnscorableError(f"Resemblyzer finds no speech in the {name}")
            vectors.append(self._encoder.embed_utterance(speech))
        return finite(np.dot(*vectors))


class SpeakerSimilarityWavlm(Metric):
    """Cosine of WavLM's speaker embeddings of the original and the decoded recording."""

    name = "speaker_similarity_wavlm"
    title = "Speaker similarity (WavLM)"
    higher_is_better = True
    source = f"WavLM, arXiv 2110.13900: {SPEAKER_REPOSITORY}, by the package transformers"
    sample_rate = 16_000
    packages = ("transformers",)

    @classmethod
    def check(cls) -> None:
        """Without loading the network; see ``Metric.check``."""
        with needs_extra("speaker-wavlm"):
            import transformers  # noqa: F401
        cls._path()

    @staticmethod
    def _path() -> Path:
        return _weights("speaker-wavlm", SPEAKER_VARIABLE, SPEAKER_REPOSITORY, None)

    def __init__(self) -> None:
        """Load the network.

        Raises:
            MissingExtraError: transformers is not installed.
            ModelError: the network is missing and cannot be downloaded, or is another one.
        """
        with needs_extra("speaker-wavlm"):
            from transformers import AutoFeatureExtractor, WavLMForXVector
        source = self._path()
        try:
            self._prepare = AutoFeatureExtractor.from_pretrained(source, local_files_only=True)
            network, loading = WavLMForXVector.from_pretrained(
                source, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{source} holds no speaker model: {_line(error)}") from error
        missing = {name for name in loading["missing_keys"] if not name.startswith("objective.")}
        if missing:
            raise ModelError(f"{source} holds no speaker model: it lacks {min(missing)}")
        self._network = network.eval()

    def score(self, trial: Trial) -> float:
        """-1 to 1; 1 is the same voice."""
        import torch

        pair = audible(*trial.at(self.sample_rate))
        _at_least(0.5, trial)
        inputs = self._prepare(list(pair), sampling_rate=self.sample_rate, return_tensors="pt")
        with torch.inference_mode():
            reference, decoded = self._network(**inputs).embeddings
        return finite(torch.cosine_similarity(reference, decoded, dim=0).item())


def _weights(extra: str, variable: str, repository: str, file: str | None) -> Path:
    """The path of weights, from an environment variable or the hub.

    Args:
        extra: with the package that downloads them.
        variable: of the environment.
        repository: of the hub.
        file: in the repository; None for all of it.

    Raises:
        ModelError: there are none.
    """
    if named := os.environ.get(variable):
        if not Path(named).exists():
            raise ModelError(f"{variable} names {named}, which does not exist")
        return Path(named)
    with needs_extra(extra):
        from huggingface_hub import hf_hub_download, snapshot_download
    try:
        if file is not None:
            return Path(hf_hub_download(repository, file))
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.bin", "*.safeten*"]))
    # What huggingface_hub raises without a network depends on its version.
    except Exception as error:
        what = f"{file} of the repository" if file else "the repository"
        raise ModelError(
            f"weights cannot be downloaded ({_line(error)}); get {what} {repository} from the "
            f"Hugging Face hub where there is a network, and set {variable} to its path"
        ) from error


def _line(error: Exception) -> str:
    """The first sentence of an error."""
    return (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
