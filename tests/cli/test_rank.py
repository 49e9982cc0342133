import csv


def test_architectures_are_ranked(run, digits_ghn, tmp_path):
    path = tmp_path / "ranking.csv"
    options = ("--count", 3, "--top", 2, "--width", 8, "--image-size", 8, "--check", 1, "--out", path)
    code, out, _ = run("rank", digits_ghn, *options)
    assert code == 0
    assert any(line.startswith("Kendall's τ") for line in out)
    assert sum(line.startswith("search/") for line in out) == 2
    with open(path, encoding="utf-8", newline="") as stream:
        values = [float(row["top1"]) for row in csv.DictReader(stream)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 3


def test_networks_by_name_are_ranked(run, digits_ghn, monkeypatch):
    monkeypatch.setattr("ghn_pyg.cli.terminal.LOG_SECONDS", 0)
    networks = ("--network", "test/3", "--network", "timm/test_resnet")
    code, out, err = run("rank", digits_ghn, *networks, "--width", 8, "--image-size", 16)
    assert code == 0
    assert err == "Ranking: 1 of 2, 0 min left\n"  # where there is no terminal
    assert {line.split(" ")[0] for line in out if line.startswith(("test/", "timm/"))} == {"test/3", "timm/test_resnet"}
