import sys

from ghn_pyg.zoo import network_names


def test_models(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    rows = [line for line in out if line and "─" not in line]
    assert rows[:-1] == [
        "name parameters width channels layers heads classes trained",
        "ghn3tm8 6,906,632 64 64 3 8 1000 on the hub",
        "ghn3sm8 35,810,368 128 128 5 16 1000 on the hub",
        "ghn3lm8 214,668,960 256 256 12 16 1000 on the hub",
        "ghn3xlm16 654,365,184 384 384 24 16 1000 on the hub",
        "ghn2 2,319,720 32 64 1000 on the hub",
        "ghn1 2,319,688 32 64 1000",
        "mlp 2,313,352 32 64 1000",
        "digits 1,748,588 64 32 3 8 10 bundled",
    ]
    assert "ghn-pyg init NAME" in rows[-1]


def test_networks_of_all_libraries(run):
    code, names, err = run("models", "--networks")
    assert (code, err) == (0, "")
    assert names[: len(network_names("torchvision"))] == network_names("torchvision")
    assert {"timm/test_vit", "timm/resnet18", "hf/bert", "hf/gpt2"} <= set(names)


def test_networks_of_missing_libraries_are_left_out(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run("models", "--networks") == (0, network_names("torchvision"), "")
