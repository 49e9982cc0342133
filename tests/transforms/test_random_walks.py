import pytest
import torch
from torch_geometric.data import Batch, Data

from ghn_pyg.transforms import AddRelativeWalks
from tests.transforms.test_distances import any_graph


@pytest.mark.parametrize(("nodes", "edges"), [(1, 0), (1, 2), (7, 11), (13, 40)])
def test_powers_of_the_matrix(nodes, edges):
    data = any_graph(nodes, edges, seed=nodes)
    step = torch.zeros(nodes, nodes)
    for source, target in data.edge_index.t().tolist():
        step[source, target] += 1 / (data.edge_index[0] == source).sum()
    found = AddRelativeWalks(5)(data).relative_walks.view(nodes, nodes, 5)
    for power in range(5):
        torch.testing.assert_close(found[..., power], torch.linalg.matrix_power(step, power), rtol=1e-5, atol=1e-6)


def test_a_batch_is_its_graphs():
    graphs = [any_graph(5, 7, 0), any_graph(3, 2, 1)]
    batch = AddRelativeWalks(3)(Batch.from_data_list(graphs))
    own = [AddRelativeWalks(3)(graph).relative_walks for graph in graphs]
    assert torch.equal(batch.relative_walks, torch.cat(own))
    assert torch.equal(batch[1].relative_walks, own[1])
    assert not batch.is_edge_attr("relative_walks")


def test_a_step_at_least():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        AddRelativeWalks(0)
    with pytest.raises(ValueError, match="set num_nodes"):
        AddRelativeWalks()(Data(edge_index=torch.tensor([[0], [3]]), num_nodes=2))
