"""Networks as metrics: the packages' numbers, and one clear line where weights are missing."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from signals import noise, noisy, speech, trial

from simvq_audio.errors import MissingExtraError, ModelError
from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics import neural


def test_dnsmos_is_speechmos_and_runs_once(monkeypatch):
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    decoded = noisy(speech())[:48_000]
    expected = dnsmos.run(decoded, 16_000)
    pair = trial(speech()[:48_000], decoded)
    assert neural.DnsmosOverall().score(pair) == pytest.approx(expected["ovrl_mos"])
    monkeypatch.setattr(dnsmos, "run", lambda *_: pytest.fail("run again"))
    for metric, key in (
        (neural.DnsmosSignal, "sig_mos"),
        (neural.DnsmosBackground, "bak_mos"),
        (neural.DnsmosP808, "p808_mos"),
    ):
        assert metric().score(pair) == pytest.approx(expected[key])


def test_dnsmos_takes_what_goes_beyond_full_scale_and_refuses_silence():
    pytest.importorskip("speechmos.dnsmos")
    loud = 3 * speech()[:48_000]
    clipped = trial(loud, np.clip(loud, -1, 1))
    metric = neural.DnsmosOverall()
    assert metric.score(trial(loud, loud)) == metric.score(clipped)
    with pytest.raises(UnscorableError, match="the decoded recording is silent"):
        metric.score(trial(loud, 0 * loud))


def test_visqol_is_that_of_its_package():
    visqol = pytest.importorskip("visqol")
    pytest.importorskip("ai_edge_litert")
    pair = trial(speech(), noisy(speech()))
    api = visqol.VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    given = (np.float64(pair.reference), np.float64(pair.decoded))
    metric = neural.Visqol()
    assert metric.score(pair) == pytest.approx(api.measure_from_arrays(*given, 16_000).moslqo)
    assert metric.score(trial(speech(), speech())) > 4
    with pytest.raises(UnscorableError, match="shorter than 1 s"):
        metric.score(trial(speech()[8_000:16_000], speech()[8_000:16_000]))


def test_distillmos_is_that_of_its_package_and_takes_long_recordings_in_pieces(capsys):
    distillmos = pytest.importorskip("distillmos")
    metric = neural.DistillMos()
    assert capsys.readouterr().out == ""
    package = distillmos.ConvTransformerSQAModel().eval()
    clean = np.tile(speech(), 2)[: 9 * 16_000]
    for decoded in (clean, clean[:20_000]):  # three crops, then one with padding
        with torch.inference_mode():
            expected = package(torch.from_numpy(decoded)[None]).item()
        assert metric.score(trial(noisy(decoded), decoded)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UnscorableError, match="the decoded recording is silent"):
        metric.score(trial(clean, 0 * clean))


def test_resemblyzer_hears_the_voice():
    resemblyzer = pytest.importorskip("resemblyzer")
    metric = neural.SpeakerSimilarity()
    reference, decoded = speech(), noisy(speech(), 5)
    assert metric.score(trial(reference, reference)) == pytest.approx(1, abs=1e-5)
    encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
    a, b = (encoder.embed_utterance(resemblyzer.preprocess_wav(x)) for x in (reference, decoded))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert expected < 0.99
    assert metric.score(trial(reference, decoded)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UnscorableError, match="finds no speech in the decoded recording"):
        metric.score(trial(reference, 1e-4 * noise(len(reference))))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for variable in (neural.UTMOS_VARIABLE, neural.SPEAKER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_weights_that_cannot_be_had_are_one_line_that_says_what_to_do(no_network):
    cases = [
        ("utmos_pytorch", neural.Utmos, "get utmos_state_dict.pt of .*set SIMVQ_AUDIO_UTMOS to"),
        (
            "transformers",
            neural.SpeakerSimilarityWavlm,
            "set SIMVQ_AUDIO_SPEAKER_MODEL to its path",
        ),
    ]
    for package, metric, advice in cases:
        pytest.importorskip(package)
        with pytest.raises(ModelError, match=advice) as caught:
            metric()
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_is_not_utmos_is_not_taken_for_it(monkeypatch, tmp_path):
    """Its package would go on with random weights."""
    pytest.importorskip("utmos_pytorch")
    monkeypatch.setenv(neural.UTMOS_VARIABLE, str(tmp_path / "none.pt"))
    with pytest.raises(ModelError, match=r"SIMVQ_AUDIO_UTMOS names .* does not exist"):
        neural.Utmos()
    path = tmp_path / "weights.pt"
    monkeypatch.setenv(neural.UTMOS_VARIABLE, str(path))
    torch.save({"some.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="does not hold UTMOS' weights: it lacks some"):
        neural.Utmos()
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="does not hold UTMOS' weights"):
        neural.Utmos()


@pytest.mark.parametrize(
    ("metric", "package", "variable"),
    [
        (neural.Utmos, "utmos_pytorch", neural.UTMOS_VARIABLE),
        (neural.SpeakerSimilarityWavlm, "transformers", neural.SPEAKER_VARIABLE),
    ],
)
def test_checking_looks_for_packages_and_weights_alone(
    metric, package, variable, monkeypatch, tmp_path
):
    """The stand-in for the package has nothing that could be loaded."""
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setenv(variable, str(tmp_path))
    metric.check()
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    with pytest.raises(ModelError, match="does not exist"):
        metric.check()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError):
        metric.check()


@pytest.fixture(scope="module")
def speaker_model(tmp_path_factory):
    """A small speaker network of the published kind, random."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_stride=(10, 16),
        conv_kernel=(20, 16),
        tdnn_dim=(16, 16, 32),
        tdnn_kernel=(5, 3, 1),
        tdnn_dilation=(1, 2, 1),
        xvector_output_dim=12,
    )
    folder = tmp_path_factory.mktemp("speaker")
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_wavlm_similarity_is_the_cosine_of_embeddings(speaker_model, monkeypatch):
    import transformers

    monkeypatch.setenv(neural.SPEAKER_VARIABLE, str(speaker_model))
    metric = neural.SpeakerSimilarityWavlm()
    reference, decoded = speech()[:32_000], noisy(speech()[:32_000], 0)
    assert metric.score(trial(reference, reference)) == pytest.approx(1, abs=1e-5)
    network = transformers.WavLMForXVector.from_pretrained(speaker_model).eval()
    vectors = []
    for waveform in (reference, decoded):
        normalised = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        with torch.no_grad():
            vectors.append(network(torch.from_numpy(normalised)[None]).embeddings[0].numpy())
    a, b = vectors
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert expected < 0.9999
    assert metric.score(trial(reference, decoded)) == pytest.approx(expected, abs=1e-4)


def test_a_network_without_a_speaker_head_is_refused(speaker_model, monkeypatch, tmp_path):
    import transformers

    network = transformers.WavLMForXVector.from_pretrained(speaker_model)
    network.wavlm.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    monkeypatch.setenv(neural.SPEAKER_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="holds no speaker model: it lacks"):
        neural.SpeakerSimilarityWavlm()


@pytest.mark.parametrize(
    ("metric", "package"),
    [
        (neural.DistillMos, "distillmos"),
        (neural.SpeakerSimilarity, "resemblyzer"),
        (neural.Visqol, "visqol"),
    ],
)
def test_checks_load_no_network(metric, package, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.setattr(metric, "__init__", lambda self: pytest.fail("the network was loaded"))
    metric.check()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match="pip install"):
        metric.check()
