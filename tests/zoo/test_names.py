import pytest
import torch

from ghn_pyg.zoo.names import InputSpec, Source, check_inputs, is_pattern, make_inputs, parse_input, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("resnet18", Source("torchvision", "resnet18")),
        ("timm/resnet18.a1_in1k", Source("timm", "resnet18.a1_in1k")),
        ("hf/bert", Source("hf", "bert")),
        ("hf/bert:BertForMaskedLM", Source("hf", "bert", "BertForMaskedLM")),
        ("module:make:main", Source("module", "make", "main")),
        ("module:a.b2._c:Net.small", Source("module", "a.b2._c", "Net.small")),
    ],
)
def test_sources(text, source):
    assert parse_source(text) == source


def test_configurations_on_disk(tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()
    (tmp_path / "odd:name").mkdir()
    assert parse_source(f"hf/{tmp_path}") == Source("hf", str(tmp_path))
    assert parse_source(f"hf/{tmp_path}/config.json:GPT2Model") == Source("hf", f"{tmp_path}/config.json", "GPT2Model")
    assert parse_source(f"hf/{tmp_path}/odd:name") == Source("hf", f"{tmp_path}/odd:name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("hf/./config.json").name == "./config.json"
    assert parse_source("hf/~/config.json").name == "~/config.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^expected a torchvision name, timm/NAME, hf/MODEL_TYPE, .* for a network, got ''$"),
        ("tim/resnet18", r"got 'tim/resnet18'; did you mean timm/resnet18\?"),
        ("huggingface/bert", r"did you mean hf/bert\?"),
        ("torchvision/resnet18", r"did you mean resnet18\?"),
        ("timm/", "got 'timm/'"),
        ("models.small:make", r"did you mean module:models\.small:make\?"),
        ("module:models.small", "expected module:PACKAGE.MODULE:FACTORY, .* got 'module:models.small'"),
        ("module::make", "expected module:PACKAGE"),
        ("module:models/small.py:make", "expected module:PACKAGE"),
        ("hf/user/model", "^hf/user/model: there is no file or folder user/model here; .* nothing is downloaded"),
        ("hf/model.json", "there is no file or folder model.json here"),
        ("hf/bert:", "expected hf/CONFIG:CLASS with a class of Transformers, got 'hf/bert:'"),
        ("hf/:BertModel", "expected hf/CONFIG:CLASS"),
    ],
)
def test_what_names_no_network(text, message):
    with pytest.raises(ValueError, match=message):
        parse_source(text)


def test_a_path_is_recognised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").touch()
    with pytest.raises(ValueError, match=r"did you mean hf/bert/config\.json\?"):
        parse_source("bert/config.json")


def test_patterns():
    assert all(map(is_pattern, ["timm/*", "resnet?8", "hf/[ab]*"]))
    assert not any(map(is_pattern, ["resnet18", "hf/bert", "module:a:b"]))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("3", InputSpec((3,))),
        ("1x3x32x32", InputSpec((1, 3, 32, 32))),
        ("1x16:long", InputSpec((1, 16), "int64")),
        ("input_ids=1x16:int32", InputSpec((1, 16), "int32", "input_ids")),
        ("mask=2x5:bool", InputSpec((2, 5), "bool", "mask")),
    ],
)
def test_inputs(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize("text", ["", "1x", "x3", "3x-1", "1,3", "1x3:", "=1x3", "ids:1x3"])
def test_what_is_no_shape(text):
    with pytest.raises(ValueError, match="expected the shape of an input, such as 1x3x32x32"):
        parse_input(text)


def test_unknown_types():
    with pytest.raises(
        ValueError, match="unknown type 'longer' of the input '1x3:longer', expected one of float, half"
    ):
        parse_input("1x3:longer")


def test_example_inputs():
    image, ids, mask = make_inputs([parse_input("1x3x5x7"), parse_input("1x11:long"), parse_input("1x2:bool")])
    assert (image.shape, image.dtype, image.device.type) == ((1, 3, 5, 7), torch.float32, "meta")
    assert (ids.dtype, ids.tolist()) == (torch.int64, [[0] * 11])
    assert (mask.dtype, mask.tolist()) == (torch.bool, [[True, True]])
    named = make_inputs([parse_input("b=2:double"), parse_input("a=3:bfloat16")])
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in named.items()] == [
        ("b", (2,), torch.float64), ("a", (3,), torch.bfloat16),
    ]  # fmt: skip


@pytest.mark.parametrize("texts", [["a=1", "a=2"], ["a=1", "2"]])
def test_inputs_that_do_not_go_together(texts):
    with pytest.raises(ValueError, match="expected a different keyword for each input, or none for all of them"):
        check_inputs(list(map(parse_input, texts)))
    check_inputs([])
    check_inputs([parse_input("1"), parse_input("1")])
