import json
import socket
import time

import pytest
import transformers
from huggingface_hub import constants

from ghn_pyg.zoo import transformers_models, without_memory

TINY = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 11, "vocab_size": 13}


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def connect(*_):
        raise AssertionError("something is downloaded")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def config(tmp_path):
    """Writes a configuration of BERT and returns its folder."""

    def write(**fields):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **TINY, **fields}))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("architectures", "head", "name"),
    [
        (None, "", "BertModel"),
        (["BertForMaskedLM"], "", "BertForMaskedLM"),
        (["OwnBert", "BertForMaskedLM"], "", "BertForMaskedLM"),
        (["OwnBert"], "", "BertModel"),
        (["BertForMaskedLM"], "BertForTokenClassification", "BertForTokenClassification"),
        (None, "AutoModelForQuestionAnswering", "BertForQuestionAnswering"),
    ],
)
def test_the_class_follows_the_name_or_the_configuration(architectures, head, name, config):
    network = transformers_models.build(str(config(architectures=architectures)), head)
    assert type(network).__name__ == name
    assert not network.training
    assert network.get_input_embeddings().weight.shape == (13, 6)


def test_model_types_have_a_default_configuration():
    network = without_memory(lambda: transformers_models.build("bert"))
    assert type(network).__name__ == "BertModel"
    assert network.embeddings.word_embeddings.weight.shape == (30_522, 768)


def test_a_path_is_preferred_to_a_model_type(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    config().joinpath("config.json").rename(tmp_path / "gpt2" / "config.json")
    assert type(transformers_models.build("gpt2")).__name__ == "BertModel"
    assert type(transformers_models.build("gpt2/config.json")).__name__ == "BertModel"


def test_backbones_are_built_without_their_weights(tmp_path):
    backbone = transformers.AutoConfig.for_model("timm_backbone", backbone="test_resnet", use_pretrained_backbone=True)
    small = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
    config = transformers.AutoConfig.for_model("detr", backbone_config=backbone, **small)
    config.to_json_file(tmp_path / "config.json", use_diff=False)
    network = transformers_models.build(str(tmp_path))
    assert network.config.backbone_config.use_pretrained_backbone is False


HOSTILE = {
    "a function": {"architectures": ["enable_full_determinism"]},
    "a class that is no network": {"architectures": ["BertTokenizer", "Trainer"]},
    "a network of another model type": {"architectures": ["GPT2Model"]},
    "names that are none": {"architectures": [3, "", "__class__", "models"]},
    "attention of the hub": {"_attn_implementation": "someone/attention"},
    "attention of the hub, by its other name": {"attn_implementation": {"": "someone/attention"}},
    "attention of the hub, internal": {"_attn_implementation_internal": "someone/attention"},
    "code of the hub": {"auto_map": {"AutoConfig": "someone/own--own.Config", "AutoModel": "someone/own--own.Model"}},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_a_configuration_calls_and_asks_for_nothing(fields, config, monkeypatch):
    called = []
    monkeypatch.setattr(transformers, "enable_full_determinism", called.append)
    network = transformers_models.build(str(config(**fields)))
    assert type(network).__name__ == "BertModel"
    assert called == []


def test_a_backbone_of_the_hub_is_not_asked_for(tmp_path):
    small = {"model_type": "detr", "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
    for backbone in ({"use_timm_backbone": False, "backbone": "someone/own"}, {"backbone": "hf-hub:someone/own"}):
        (tmp_path / "config.json").write_text(json.dumps({**small, **backbone}))
        with pytest.raises(ValueError, match=r"configuration of Transformers|cannot be built"):
            transformers_models.build(str(tmp_path))
    assert constants.HF_HUB_OFFLINE is False


ODD = [
    {"hidden_size": "six"}, {"hidden_size": None}, {"hidden_size": [6]}, {"hidden_size": -6}, {"hidden_size": 10**12},
    {"hidden_size": 10**20}, {"hidden_size": float("nan")}, {"num_attention_heads": 0}, {"vocab_size": -13},
    {"vocab_size": 10**15}, {"vocab_size": 13.5}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": 10**7},
    {"max_position_embeddings": 10**13}, {"num_labels": 10**12}, {"id2label": [1]}, {"hidden_act": 7},
    {"hidden_act": "nope"}, {"hidden_dropout_prob": 7}, {"layer_norm_eps": "x"}, {"torch_dtype": 5},
    {"pad_token_id": 99}, {"model_type": "swin", "depths": [10**9]}, {"model_type": "vit", "patch_size": 0},
    {"model_type": "wav2vec2", "conv_dim": [10**9] * 7}, {"model_type": "mixtral", "num_local_experts": 10**9},
    {"model_type": "switch_transformers", "num_experts": 10**6}, {"num_labels": 10**6},
    {"model_type": "olmoe", "num_experts": 10**6}, {"model_type": "clip", "vision_config": {"num_labels": 10**6}},
    {"model_type": "clip", "text_config": {"num_hidden_layers": 10**9}}, {"model_type": "clip", "text_config": 5},
]  # fmt: skip


@pytest.mark.parametrize("fields", ODD, ids=str)
def test_odd_values_end_in_one_error_soon(fields, config):
    path, start = str(config(**fields)), time.process_time()
    with pytest.raises(ValueError, match=r"configuration of Transformers|cannot be built from this"):
        without_memory(lambda: transformers_models.build(path))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("fields", [{"architectures": 5}, {"architectures": {"a": 1}}, {"rope_theta": 2_804_339_835}])
def test_odd_values_that_are_no_sizes(fields, config):
    assert type(transformers_models.build(str(config(**fields)))).__name__ == "BertModel"


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        (".", "", r"the folder \. has no config\.json"),
        ("bertt", "", r"no model type 'bertt'; did you mean hf/bert "),
        ("xylophones", "", r"no model type 'xylophones'; .* nothing is downloaded"),
        ("bert", "BertForMasks", r"no network BertForMasks for a BertConfig; did you mean .*Masked"),
        ("bert", "GPT2Model", "no network GPT2Model for a BertConfig"),
        ("bert", "BertTokenizer", "no network BertTokenizer"),
        ("bert", "AutoModelForObjectDetection", "cannot be built from this BertConfig: .* name another class"),
    ],
)
def test_unknown_names(name, head, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        transformers_models.build(name, head)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json is not a configuration of Transformers"),
        ("{}", r"model_type"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', r"trust_remote_code|own"),
        ('{"model_type": "bert", "hidden_size": 7, "num_attention_heads": 2}', "multiple of the number of attention"),
    ],
)
def test_configurations_that_build_no_network(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "own.py").write_text("raise AssertionError('remote code ran')")
    with pytest.raises(ValueError, match=message):
        transformers_models.build(str(tmp_path))
