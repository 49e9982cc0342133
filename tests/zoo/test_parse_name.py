import pytest

from ghn_pyg.zoo.parse_name import parse_name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("resnet18", ("torchvision", "resnet18", "")),
        ("timm/resnet18.a1_in1k", ("timm", "resnet18.a1_in1k", "")),
        ("hf/bert", ("hf", "bert", "")),
        ("hf/bert:BertForMaskedLM", ("hf", "bert", "BertForMaskedLM")),
        ("module:make:main", ("module", "make", "main")),
        ("module:a.b2._c:Net.small", ("module", "a.b2._c", "Net.small")),
    ],
)
def test_names_are_split_into_parts(text, parts):
    assert parse_name(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf/.", ("hf", ".", "")),
        ("hf/./config.json:GPT2Model", ("hf", "./config.json", "GPT2Model")),
        ("hf/~/config.json", ("hf", "~/config.json", "")),
        ("hf/./odd:name", ("hf", "./odd:name", "")),
    ],
)
def test_configurations_on_disk_are_found(text, parts, tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()
    (tmp_path / "odd:name").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_name(text) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a torchvision name, timm/NAME, hf/MODEL_TYPE, .*, got ''$"),
        ("tim/resnet18", r"got 'tim/resnet18'; did you mean timm/resnet18\?"),
        ("huggingface/bert", r"did you mean hf/bert\?"),
        ("torchvision/resnet18", r"did you mean resnet18\?"),
        ("bert/config.json", r"did you mean hf/bert/config\.json\?"),
        ("timm/", "got 'timm/'"),
        ("models.small:make", r"did you mean module:models\.small:make\?"),
        ("module:models.small", "expected module:PACKAGE.MODULE:FACTORY, .* got 'module:models.small'"),
        ("module::make", "expected module:PACKAGE"),
        ("module:models/small.py:make", "expected module:PACKAGE"),
        ("hf/user/model", "file or folder user/model does not exist; nothing is downloaded"),
        ("hf/model.json", "file or folder model.json does not exist"),
        ("hf/bert:", "expected hf/CONFIG:CLASS with a class of Transformers, got 'hf/bert:'"),
        ("hf/:BertModel", "expected hf/CONFIG:CLASS"),
    ],
)
def test_other_forms_are_refused_with_a_suggestion(text, message, tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        parse_name(text)
