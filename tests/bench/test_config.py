import json

import pytest

from ghn_pyg.bench.config import BenchConfig, load_bench
from ghn_pyg.bench.parameter_prediction import ParameterTask
from ghn_pyg.bench.tasks import TASKS
from ghn_pyg.models.encoders import ENCODERS
from tests.bench.tiny import bench


def test_the_benchmark_of_the_readme():
    config = load_bench("encoders")
    assert set(config.encoders) == set(ENCODERS)
    assert config.seeds == (0, 1)
    assert list(config.tasks) == ["parameters", "properties", "long_range", "cost"]
    # The properties are those of the very GHNs of the first task.
    runs = [config.tasks[name].config(config.ghn("ghn3"), 1) for name in ("parameters", "properties")]
    assert runs[0] == runs[1]
    assert (runs[0].ghn.encoder, runs[0].ghn.layers, runs[0].ghn.heads, runs[0].seed) == ("ghn3", 3, 4, 1)


def test_encoders_have_what_they_have():
    config = bench()
    assert (config.ghn("ghn2").layers, config.ghn("ghn2").heads) == (0, 0)
    assert (config.ghn("gcn").layers, config.ghn("gcn").heads) == (1, 0)
    assert (config.ghn("gps").layers, config.ghn("gps").heads) == (1, 2)


@pytest.mark.parametrize("config", [bench(), load_bench("encoders")], ids=["tiny", "encoders"])
def test_as_plain_values_and_back(config):
    assert BenchConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_two_tasks_of_a_kind():
    tasks = {"short": {"kind": "parameters", "count": 3}, "parameters": {}}
    config = bench(tasks)
    assert config.tasks == {"short": ParameterTask(count=3), "parameters": ParameterTask()}


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
        ({"encoders": ["mpl"]}, r"GHNConfig.encoder expected one of .*; did you mean mlp"),
        ({"encoders": "mlp"}, "BenchConfig.encoders expected a list, got 'mlp'"),
        ({"encoders": []}, r"BenchConfig.encoders expected different values, at least one, got \(\)"),
        ({"seeds": [0, 0]}, r"BenchConfig.seeds expected different values, at least one, got \(0, 0\)"),
        ({"seeds": [-1]}, "BenchConfig.seeds expected integers of at least 0, got -1"),
        ({"heads": 3}, "GHNConfig.hidden_channels expected a multiple of heads, got 8 and 3"),
        ({"tasks": {"costs": {}}}, "there is no task 'costs'; did you mean cost"),
        (
            {"tasks": {"parameters": {"splits": []}}},
            r"\.splits expected a list, each of it a text, got \(\)",
        ),
        (
            {"tasks": {"cost": {"nodes": []}}},
            r"\.nodes expected a list, each of it a whole number .*, got \(\)",
        ),
        ({"tasks": {"long_range": {"graphs": 3}}}, "LongRangeTask.graphs expected at least 4, got 3"),
        ({"tasks": {"properties": {"count": 3}}}, "PropertyTask has no field 'count'"),
        ({"tasks": {"cost": {"node": 3}}}, "CostTask has no field 'node'; did you mean nodes"),
        ({"tasks": {"properties": {"networks": 7}}}, "PropertyTask.networks expected at least 10, got 7"),
        ({"tasks": {"cost": 3}}, "the task 'cost' expected its fields, or nothing, got 3"),
        ({"tasks": {"../x": {"kind": "cost"}}}, "the name of a task expected letters, digits, .*, got '../x'"),
        ({"tasks": {"cost": {"nodes": 64}}}, "CostTask.nodes expected a list, each of it a whole number of at least 1"),
        ({"tasks": {"cost": {"repeats": "7"}}}, "CostTask.repeats expected a whole number of at least 1, got '7'"),
        ({"tasks": {"parameters": {"count": 0}}}, "ParameterTask.count expected a whole number of at least 1, got 0"),
        ({"tasks": {"parameters": {"splits": "test"}}}, "ParameterTask.splits expected a list, each of it a text"),
        ({"tasks": {"parameters": {"splits": ["tests"]}}}, "tests"),
        ({"tasks": {"parameters": {"recipe": "digit"}}}, "there is no recipe 'digit'; did you mean digits"),
        ({"tasks": {"properties": {"noise": -1}}}, "PropertyTask.noise expected a number of at least 0, got -1"),
        ({"tasks": {"long_range": {"shortest": 9, "longest": 5}}}, "expected a number from 2 to longest, got 9 and 5"),
        ({"encoders": [["mlp"]]}, "BenchConfig.encoders expected a list of str"),
        ({"seeds": ["0"]}, "BenchConfig.seeds expected a list of int"),
        ({"tasks": {}}, f"BenchConfig.tasks expected at least one of {', '.join(TASKS)}"),
        ({"tasks": ["cost"]}, r"BenchConfig.tasks expected names of tasks, each with its fields, got \['cost'\]"),
    ],
)
def test_faulty_values(changes, message):
    values = {"encoders": ["gps"], "hidden_channels": 8, "heads": 2, "tasks": {"cost": {}}}
    with pytest.raises(ValueError, match=message):
        BenchConfig.from_dict({**values, **changes})
