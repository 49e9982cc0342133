import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.node_encodings import (
    CentralityEncoding,
    DepthEncoding,
    Embedding,
    ShapeEncoding,
    channel_sizes,
    kernel_sizes,
)
from ghn_pyg.transforms import AddCentrality
from tests.properties import assert_pure, chain, graph_of, join, unequal_graphs

# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "std"),
    [
        (lambda: Embedding(10_007, 25), 0.2),
        (lambda: Embedding(10_007, 4, channels=16), 0.25),
        (lambda: ShapeEncoding(16, 1000, 16).channel, 0.25),
        (lambda: CentralityEncoding(64).in_degree, 0.125),
        (lambda: DepthEncoding(64), 0.125),
    ],
)
def test_embeddings_start_small(table, std):
    table = table()
    nn.init.constant_(table.weight, 5)
    table.reset_parameters()
    assert table.weight.std().item() == pytest.approx(std, rel=0.05)
    assert abs(table.weight.mean().item()) < 0.1 * std
    assert table.weight.abs().max() <= 2


# --- tables ----------------------------------------------------------------------------------------------------------


def test_channel_table():
    table = channel_sizes(1000)
    assert len(table) == 391
    assert table[:9] == [1, 3, 8, 16, 24, 32, 40, 48, 56]
    assert table[9:14] == [64, 80, 96, 112, 128]
    assert table[66:71] == [976, 992, 1000, 1008, 1024]
    assert table[-131:-126] == [4064, 4080, 4096, 4128, 4160]
    assert table[-3:] == [8128, 8160, 8192]
    assert table == sorted(set(table))


@pytest.mark.parametrize(
    ("classes", "count"), [(1000, 391), (10, 391), (2, 391), (1, 390), (3, 390), (64, 390), (8192, 390), (21841, 391)]
)
def test_the_number_of_classes_has_an_entry(classes, count):
    table = channel_sizes(classes)
    assert len(table) == count
    assert classes in table


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (1, [1, 3, 5, 7, 9, 11, 14, 16]),
        (11, [1, 3, 5, 7, 9, 11, 14, 16]),
        (12, [1, 3, 5, 7, 9, 11, 14, 16]),
        (13, [1, 3, 5, 7, 9, 11, 14, 16]),
        (14, [1, 3, 5, 7, 9, 11, 13, 14, 16]),
        (16, [1, 3, 5, 7, 9, 11, 13, 14, 15, 16]),
        (19, [1, 3, 5, 7, 9, 11, 13, 14, 15, 16, 17]),
    ],
)
def test_kernel_table(largest, expected):
    assert kernel_sizes(largest) == expected


@pytest.mark.parametrize(("largest", "rows"), [(16, 11), (11, 9)])
def test_published_numbers_of_rows(largest, rows):
    encoding = ShapeEncoding(8, 1000, largest)
    assert encoding.channel.weight.shape == (392, 2)
    assert encoding.spatial.weight.shape == (rows, 2)


# --- shapes ----------------------------------------------------------------------------------------------------------


def looked_up(sizes, largest=16, classes=1000, place=0):
    """For each size the size that the row belongs to that it is encoded with; ``"none"`` for the last row."""
    encoding = ShapeEncoding(4, classes, largest).double()
    table = channel_sizes(classes) if place < 2 else kernel_sizes(largest)
    rows = encoding.channel if place < 2 else encoding.spatial
    with torch.no_grad():
        rows.weight.copy_(torch.arange(len(table) + 1)[:, None])
    shape = torch.zeros(len(sizes), 4, dtype=torch.long)
    shape[:, place] = torch.tensor(sizes)
    names = [*table, "none"]
    return [names[int(row)] for row in encoding(shape)[:, place].tolist()]


CHANNELS = {
    0: "none", 1: 1, 2: 1, 3: 3, 4: 8, 5: 8, 6: 8, 7: 8, 8: 8, 9: 8, 12: 8, 13: 16, 20: 16, 21: 24, 56: 56, 60: 56,
    61: 64, 64: 64, 72: 64, 73: 80, 88: 80, 983: 976, 984: 976, 985: 992, 996: 992, 997: 1000, 1000: 1000, 1004: 1000,
    1005: 1008, 4080: 4080, 4088: 4080, 4089: 4096, 4112: 4096, 4113: 4128, 8176: 8160, 8177: 8192, 8192: 8192,
    8193: 8192, 100_003: 8192,
}  # fmt: skip


@pytest.mark.parametrize("place", [0, 1])
def test_channels_are_looked_up(place):
    assert looked_up(list(CHANNELS), place=place) == list(CHANNELS.values())


KERNELS = {0: "none", 1: 1, 2: 3, 3: 3, 4: 3, 5: 5, 6: 5, 8: 7, 10: 9, 11: 11, 17: 16, 31: 16, 997: 16}


@pytest.mark.parametrize("place", [2, 3])
@pytest.mark.parametrize(
    ("largest", "more"),
    [(16, {12: 11, 13: 13, 14: 14, 15: 15, 16: 16}), (11, {12: 11, 13: 14, 14: 14, 15: 14, 16: 16})],
)
def test_kernels_are_looked_up(place, largest, more):
    expected = KERNELS | more
    assert looked_up(list(expected), largest=largest, place=place) == list(expected.values())


@pytest.mark.parametrize(("classes", "expected"), [(10, [10, 8, 10]), (11, [11, 8, 11]), (17, [8, 8, 8])])
def test_the_number_of_classes_is_its_own_neighbour(classes, expected):
    assert looked_up([10, 9, 11], classes=classes) == expected


@pytest.mark.parametrize("classes", [4, 5, 6, 7])
def test_four_to_seven_classes_have_a_row_of_their_own(classes):
    assert looked_up([3, 4, 5, 6, 7, 8], classes=classes) == [3, *(n if n == classes else 8 for n in range(4, 8)), 8]


def test_more_classes_than_the_largest_channel_count():
    assert looked_up([8192, 8193, 21841, 100_003], classes=21841) == [8192, 8192, 21841, 21841]


def test_four_embeddings_side_by_side():
    encoding = ShapeEncoding(12, 1000, 16)
    with torch.no_grad():
        encoding.channel.weight.copy_(torch.arange(392)[:, None] + torch.tensor([0.1, 0.2, 0.3]))
        encoding.spatial.weight.copy_(torch.arange(11)[:, None] + torch.tensor([0.4, 0.5, 0.6]))
    result = encoding(torch.tensor([[8, 3, 5, 1], [0, 0, 0, 0], [1, 1, 7, 14]]))
    expected = [
        [2.1, 2.2, 2.3, 1.1, 1.2, 1.3, 2.4, 2.5, 2.6, 0.4, 0.5, 0.6],
        [391.1, 391.2, 391.3] * 2 + [10.4, 10.5, 10.6] * 2,
        [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 3.4, 3.5, 3.6, 7.4, 7.5, 7.6],
    ]
    torch.testing.assert_close(result, torch.tensor(expected))


def test_shapes_are_not_changed():
    encoding = ShapeEncoding(12, 11, 5)
    assert_pure(encoding, torch.tensor([[100_003, 3, 31, 7], [0, 0, 0, 0]]))


def test_the_lookup_is_no_part_of_the_state():
    assert list(ShapeEncoding(8, 10, 11).state_dict()) == ["channel.weight", "spatial.weight"]


def test_the_lookup_is_there_on_the_meta_device():
    with torch.device("meta"):
        encoding = ShapeEncoding(8, 10, 11)
    assert encoding.channel.weight.is_meta
    assert encoding.channel_rows[:9].tolist() == [391, 0, 0, 1, 2, 2, 2, 2, 2]
    assert encoding.spatial_rows[:4].tolist() == [8, 0, 1, 1]


# --- degrees ---------------------------------------------------------------------------------------------------------


def centrality():
    """In-degrees count in the units, out-degrees in the thousands."""
    encoding = CentralityEncoding(3)
    with torch.no_grad():
        encoding.in_degree.weight.copy_(torch.arange(101)[:, None] + torch.tensor([0.0, 0.25, 0.5]))
        encoding.out_degree.weight.copy_(1000 * torch.arange(101)[:, None])
    return encoding


def test_degrees():
    graph = graph_of([(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)], nodes=5, channels=3)
    result = centrality()(graph.edge_index, 5)
    assert result[:, 0].tolist() == [3000, 1001, 1001, 3, 0]
    assert (result - result[:, :1]).tolist() == [[0, 0.25, 0.5]] * 5


def test_degrees_are_counted_to_100():
    fan = [(0, node) for node in range(1, 104)] + [(node, 104) for node in range(1, 102)] + [(101, 105)]
    result = centrality()(graph_of(fan, nodes=106, channels=3).edge_index, 106)[:, 0].tolist()
    assert (result[0], result[1], result[101], result[102], result[104], result[105]) == (
        100_000, 1001, 2001, 1, 100, 1,
    )  # fmt: skip


def test_degrees_that_were_counted_before():
    encoding, edges = centrality(), torch.cat((torch.zeros(2, 103, dtype=torch.long), torch.tensor([[1], [2]])), dim=1)
    data = AddCentrality()(Data(edge_index=edges, num_nodes=5))
    result = encoding.of_degrees(data.in_degree, data.out_degree)
    assert result[:, 0].tolist() == [100_100, 1000, 1, 0, 0]
    assert torch.equal(result, encoding(edges, 5))
    assert data.in_degree[0] == 103


def test_degrees_without_edges():
    assert centrality()(torch.empty(2, 0, dtype=torch.long), 2)[:, 0].tolist() == [0, 0]


# --- distance from the input -----------------------------------------------------------------------------------------


def depth():
    encoding = DepthEncoding(3)
    with torch.no_grad():
        encoding.weight.copy_(torch.arange(1001)[:, None] + torch.tensor([0.0, 0.25, 0.5]))
    return encoding


def test_distances_from_the_first_node_of_each_graph():
    graphs = [chain(3, 2), graph_of([], 1, 2), graph_of([(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)], 5, 2)]
    result = depth()(join(graphs)[2], Blocks.of_sizes([3, 1, 5]))
    assert result[:, 0].tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 0]
    assert (result - result[:, :1]).tolist() == [[0, 0.25, 0.5]] * 9


def test_distances_are_counted_to_1000():
    distance = torch.zeros(7, 7, dtype=torch.int16)
    distance[0] = torch.tensor([0, 1, 254, 255, 1000, 1001, 32766])
    assert depth()(distance.flatten(), Blocks.of(None, 7))[:, 0].tolist() == [0, 1, 254, 255, 1000, 1000, 1000]


@pytest.mark.parametrize("kind", [torch.int16, torch.int64])
def test_distances_that_are_cut_stay_as_they_were(kind):
    distance = torch.tensor([0, 5000, 7, 0, 0, 0, 0, 0, 0], dtype=kind)
    assert_pure(lambda pairs: depth()(pairs, Blocks.of(None, 3)), distance)


def test_the_batch_of_depths_may_be_a_vector():
    encoding = DepthEncoding(8)
    _, _, distance, batch = join(unequal_graphs(8))
    assert torch.equal(encoding(distance, batch), encoding(distance, Blocks.of(batch, len(batch))))
    with pytest.raises(TypeError, match="batch expected the graph of each node, or Blocks, got NoneType"):
        encoding(distance, None)


def test_many_classes_take_little_memory():
    rows = ShapeEncoding(4, 3_000_017, 11).channel_rows
    assert rows.shape == (3_000_018,)
    own, last = int(rows[3_000_017]), int(rows[8_192])
    assert own == last + 1
    assert rows[[8_193, 1_504_104, 1_504_105]].tolist() == [last, last, own]
