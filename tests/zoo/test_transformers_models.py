import json
import socket
import sys

import pytest
import transformers

from ghn_pyg.zoo import transformers_models, without_memory

TINY = {
    "bert": {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 11,
             "vocab_size": 13, "max_position_embeddings": 17},
    "gpt2": {"n_embd": 6, "n_layer": 1, "n_head": 2, "vocab_size": 13, "n_positions": 17},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    def connect(*_):
        raise AssertionError("something is downloaded")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def config(tmp_path):
    """Writes a configuration and returns its folder."""

    def write(kind="bert", **fields):
        text = json.dumps({"model_type": kind, **TINY.get(kind, {}), **fields})
        (tmp_path / "config.json").write_text(text)
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
    folder = config(architectures=architectures)
    for path in (folder, folder / "config.json"):
        network = transformers_models.build(str(path), head)
        assert type(network).__name__ == name
        assert not network.training
        assert network.get_input_embeddings().weight.shape == (13, 6)


def test_model_types_have_a_default_configuration():
    network = without_memory(lambda: transformers_models.build("bert"))
    assert type(network).__name__ == "BertModel"
    assert network.embeddings.word_embeddings.weight.shape == (30_522, 768)


def test_a_folder_named_like_a_model_type_needs_a_configuration(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    with pytest.raises(ValueError, match=r"the folder own has no config\.json"):
        transformers_models.build("own")
    config()
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "gpt2" / "config.json")
    assert type(transformers_models.build("gpt2")).__name__ == "BertModel"


def test_backbones_are_built_without_their_weights(tmp_path):
    backbone = transformers.AutoConfig.for_model("timm_backbone", backbone="test_resnet", use_pretrained_backbone=True)
    config = transformers.AutoConfig.for_model(
        "detr", backbone_config=backbone, d_model=8, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=11, decoder_ffn_dim=11,
    )  # fmt: skip
    config.to_json_file(tmp_path / "config.json", use_diff=False)
    assert "true" in (tmp_path / "config.json").read_text().split('"use_pretrained_backbone": ')[1][:5]
    assert type(transformers_models.build(str(tmp_path))).__name__ == "DetrModel"


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("bertt", "", r"no model type 'bertt'; did you mean hf/bert "),
        ("xylophones", "", r"no model type 'xylophones'; .* nothing is downloaded"),
        ("bert", "BertForMasks", r"no network BertForMasks for a BertConfig; did you mean .*Masked"),
        ("bert", "GPT2Model", "no network GPT2Model for a BertConfig"),
        ("bert", "BertTokenizer", "no network BertTokenizer"),
        ("bert", "AutoModelForObjectDetection", "has no network for a BertConfig; name a class .* example Bert"),
    ],
)
def test_unknown_names(name, head, message):
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


@pytest.mark.parametrize("call", [transformers_models.names, lambda: transformers_models.build("bert")])
def test_without_transformers(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[transformers\]"'):
        call()
