import pytest
import torch

from tests.golden import NETWORKS, fingerprint, labelled, seeded_ghn, seeded_state_dict, traced

EVERY_NETWORK = pytest.mark.parametrize("architecture", NETWORKS)


def test_all_visible_networks_are_here():
    assert len(NETWORKS) == 22


def test_seeded_weights_are_those_of_the_recipe():
    state = seeded_state_dict({"gnn.0.ln1.weight": [3], "embed.weight": [2, 5], "decoder.fc.0.bias": [2]})
    gain, embedding, bias = state.values()
    torch.testing.assert_close(gain, torch.tensor([1.087779, 1.030192, 1.0644007]))
    torch.testing.assert_close(embedding[1], torch.tensor([-0.4692286, -0.3340265, -0.6984478, -0.2398306, -0.1960955]))
    torch.testing.assert_close(bias, torch.tensor([0.006179464, 0.030087734]))


def test_fingerprints_ignore_the_order_of_nodes():
    nodes, edges = [("input", None), ("conv", "a"), ("sum", None)], [(0, 1), (0, 2), (1, 2)]
    turned = [nodes[2], nodes[0], nodes[1]], [(1, 2), (1, 0), (2, 0)]
    assert fingerprint(*turned) == fingerprint(nodes, edges)


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        ([("input", None), ("conv", "b"), ("sum", None)], [(0, 1), (0, 2), (1, 2)]),
        ([("input", None), ("bias", "a"), ("sum", None)], [(0, 1), (0, 2), (1, 2)]),
        ([("input", None), ("conv", "a"), ("sum", None)], [(0, 1), (1, 2)]),
        ([("input", None), ("conv", "a"), ("sum", None)], [(0, 1), (1, 2), (0, 2), (0, 2)]),
        ([("input", None), ("conv", "a"), ("sum", None)], [(0, 1), (2, 0), (2, 1)]),
        ([("input", None), ("conv", "a"), ("sum", None), ("sum", None)], [(0, 1), (0, 2), (1, 2)]),
    ],
)
def test_fingerprints_tell_graphs_apart(nodes, edges):
    expected = fingerprint([("input", None), ("conv", "a"), ("sum", None)], [(0, 1), (0, 2), (1, 2)])
    assert fingerprint(nodes, edges) != expected


@EVERY_NETWORK
def test_graph(architecture):
    golden, graph = NETWORKS[architecture], traced(architecture)
    nodes, edges = labelled(graph)
    assert sorted(map(repr, nodes)) == sorted(repr(tuple(node)) for node in golden["nodes"])
    assert len(edges) == len(golden["edges"])
    assert fingerprint(nodes, edges) == fingerprint(golden["nodes"], golden["edges"])


@EVERY_NETWORK
def test_distances(architecture):
    golden, distances = NETWORKS[architecture], traced(architecture).distances()
    assert distances.sum().item() == golden["distance_sum"]
    assert distances.max().item() == golden["distance_max"]
    assert (distances == 1).sum().item() == len(golden["edges"])


@EVERY_NETWORK
def test_kept_parameters(architecture):
    graph = traced(architecture)
    assert sorted(graph.kept) == sorted(NETWORKS[architecture]["kept"])
    assert all(graph.kept.values())


@EVERY_NETWORK
def test_nodes_stand_in_topological_order_between_input_and_classifier(architecture):
    graph = traced(architecture)
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    assert graph.node_names[0] == "input"
    assert graph.classifier[-1]


@pytest.mark.parametrize("ghn", ["T", "G2"])
@EVERY_NETWORK
def test_predicted_parameters(architecture, ghn):
    golden = NETWORKS[architecture][ghn]
    prediction = seeded_ghn(ghn).predict(traced(architecture), seed=0)
    assert set(prediction) == set(golden)
    for name, (norm, *figures) in golden.items():
        values = prediction[name].double()
        values = values.flatten(0, -2)[1:] if name.endswith("pos_embedding") else values
        flat = values.flatten()
        came = [flat.norm(), flat.sum(), flat[0], flat[flat.numel() // 2], flat[-1]]
        root = flat.numel() ** 0.5
        # A sum of n elements is as far off as n elements can be together.
        allowed = [1e-5 * norm, 1e-4 * norm * root, *[1e-4 * norm / root] * 3]
        off = (torch.stack(came) - torch.tensor([norm, *figures])).abs()
        assert (off <= torch.tensor(allowed)).all(), f"{name}: {came} instead of {[norm, *figures]}"
