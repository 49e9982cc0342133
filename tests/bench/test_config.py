import json

import pytest

from ghn_pyg.bench import BenchConfig, load_bench
from ghn_pyg.bench.config import TASKS
from ghn_pyg.bench.parameter_prediction import ParameterTask
from ghn_pyg.models.encoders import ENCODERS
from tests.bench.tiny import bench


def test_the_benchmark_of_the_readme():
    config = load_bench("encoders")
    assert set(config.encoders) == set(ENCODERS)
    assert config.seeds == (0, 1)
    assert list(config.tasks) == ["parameters", "properties", "long_range", "cost"]
    assert config.tasks["parameters"].splits == ("test", "wide", "deep", "dense", "bnfree")
    assert config.to_dict()["tasks"]["long_range"] == {
        "kind": "long_range", "epochs": 20, "batch_size": 64, "learning_rate": 0.001, "graphs": 2000, "shortest": 6,
        "longest": 40,
    }  # fmt: skip
    assert BenchConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_tasks_with_the_same_recipe_share_a_ghn():
    config = load_bench("encoders")
    runs = [config.tasks[name].config(config.ghn("ghn3"), 1) for name in ("parameters", "properties")]
    assert runs[0] == runs[1]
    assert (runs[0].ghn.encoder, runs[0].ghn.layers, runs[0].ghn.heads, runs[0].seed) == ("ghn3", 3, 4, 1)


@pytest.mark.parametrize(("encoder", "layers", "heads"), [("ghn2", 0, 0), ("gcn", 1, 0), ("gps", 1, 2)])
def test_encoders_get_the_options_that_they_have(encoder, layers, heads):
    ghn = bench().ghn(encoder)
    assert (ghn.layers, ghn.heads, ghn.hidden_channels) == (layers, heads, 8)


def test_two_tasks_of_one_kind():
    tasks = {"short": {"kind": "parameters", "count": 3}, "parameters": None}
    assert bench(tasks).tasks == {"short": ParameterTask(count=3), "parameters": ParameterTask()}


def test_files_and_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("encoders: [mlp]\ntasks: {cost: {nodes: [3]}}\n")
    config = load_bench(path, ["seeds=[3, 5]", "tasks.cost.repeats=2"])
    assert config.seeds == (3, 5)
    assert (config.tasks["cost"].nodes, config.tasks["cost"].repeats) == ((3,), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ["mlp"]}, "BenchConfig has no field 'encoder'; did you mean encoders"),
        ({"encoders": ["mpl"]}, r"GHNConfig.encoder .*, got 'mpl'; did you mean mlp"),
        ({"encoders": []}, "BenchConfig.encoders.*at least 1 item"),
        ({"seeds": [0, 0]}, "BenchConfig.seeds expected different values"),
        ({"seeds": [-1]}, "BenchConfig.seeds.0 expected a value greater than or equal to 0, got -1"),
        ({"encoders": ["gps"], "heads": 3}, "GHNConfig.hidden_channels .*multiple of heads"),
        ({"tasks": {}}, f"BenchConfig.tasks expected one or more of {', '.join(TASKS)}"),
        ({"tasks": {"costs": {}}}, "there is no task 'costs'; did you mean cost"),
        ({"tasks": {"cost": 3}}, "the task 'cost' expected fields such as epochs: 5, got 3"),
        ({"tasks": {"../x": {"kind": "cost"}}}, r"name expected letters, digits, .*'\.\./x'"),
    ],
)
def test_wrong_benchmarks(changes, message):
    with pytest.raises(ValueError, match=message):
        bench(**changes)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("cost", {"node": 3}, "CostTask has no field 'node'; did you mean nodes"),
        ("cost", {"nodes": []}, "CostTask.nodes.*at least 1 item"),
        ("cost", {"nodes": 64}, "CostTask.nodes expected a valid tuple, got 64"),
        ("parameters", {"splits": ["tests"]}, "ParameterTask.splits expected names of splits.*did you mean test"),
        ("parameters", {"count": 0}, "ParameterTask.count expected a value greater than 0, got 0"),
        ("parameters", {"recipe": "digit"}, "there is no recipe 'digit'; did you mean digits"),
        ("parameters", {"changes": ["epoch=3"]}, "TrainConfig has no field 'epoch'; did you mean epochs"),
        ("properties", {"networks": 7}, "PropertyTask.networks expected a value greater than or equal to 10, got 7"),
        ("properties", {"noise": -1}, "PropertyTask.noise expected a value greater than or equal to 0, got -1"),
        ("long_range", {"graphs": 3}, "LongRangeTask.graphs expected a value greater than or equal to 4, got 3"),
        ("long_range", {"shortest": 9, "longest": 5}, "LongRangeTask.shortest expected at most longest, got 9 and 5"),
    ],
)
def test_wrong_tasks(kind, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        bench({kind: fields})
    assert "\n" not in str(caught.value)
