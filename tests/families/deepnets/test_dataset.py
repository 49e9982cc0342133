import pytest
import torch
from torch_geometric.loader import DataLoader

from ghn_pyg.families.deepnets import DeepNets, architecture_graph, sample


def test_a_split_by_index():
    split = DeepNets("val", num_classes=7, image_size=16, width=8)
    graph = split[3]
    assert len(split) == 500
    assert graph.architecture.width == 8
    assert graph.architecture.key == sample("val", 3).key
    expected = architecture_graph(sample("val", 3), 7, 16, width=8)
    assert torch.equal(graph.node_shape, expected.node_shape)
    assert torch.equal(graph.edge_index, expected.edge_index)
    assert graph.param_names == expected.param_names


def test_slices_lists_and_loaders():
    split = DeepNets("test", width=8)
    assert [graph.num_nodes for graph in split[5:8]] == [split[index].num_nodes for index in (5, 6, 7)]
    assert split[[11, 2]][1].architecture == split[2].architecture
    batch = next(iter(DataLoader(split[:3], batch_size=3)))
    assert batch.architecture == [split[index].architecture for index in range(3)]
    assert batch.num_nodes == sum(split[index].num_nodes for index in range(3))


def test_indices_and_splits_that_do_not_exist():
    for dataset, index in ((DeepNets("val"), 500), (DeepNets("val"), -501), (DeepNets("train")[5:8], 3)):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(ValueError, match="did you mean train"):
        DeepNets("trian")
