import pytest
import torch

from ghn_pyg.finetuning import add_noise, orthogonalize


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(3)
    return {
        "conv": torch.randn(5, 3, 2, 7, generator=generator),
        "bias": torch.randn(11, generator=generator),
        "tall": torch.randn(13, 5, generator=generator),
        "last": torch.randn(7, 11, generator=generator),
    }


def test_noise_has_the_size_of_the_correlations(parameters):
    noisy = add_noise(parameters, 0.5, seed=5)
    assert list(noisy) == list(parameters)
    assert noisy["bias"] is parameters["bias"]
    matrix = parameters["tall"].double()
    centred = matrix - matrix.mean(1, keepdim=True)
    centred /= centred.norm(dim=1, keepdim=True)
    std = (centred @ centred.t()).flatten().std(correction=0)
    noise = (noisy["tall"] - parameters["tall"]).double() / (0.5 * std)
    assert 0.8 < noise.std() < 1.2
    assert abs(noise.mean()) < 0.3
    double = add_noise(parameters, 1.0, seed=5)
    torch.testing.assert_close(double["conv"] - parameters["conv"], 2 * (noisy["conv"] - parameters["conv"]))


def test_noise_is_a_function_of_the_seed(parameters):
    noisy, other = add_noise(parameters, 0.5, seed=5), add_noise(parameters, 0.5, seed=6)
    torch.manual_seed(1)
    torch.testing.assert_close(add_noise(parameters, 0.5, seed=5), noisy, rtol=0, atol=0)
    assert not torch.equal(noisy["conv"], other["conv"])
    skipped = add_noise(parameters, 0.5, seed=5, skip={"conv"})
    assert skipped["conv"] is parameters["conv"]
    torch.testing.assert_close(skipped["tall"], noisy["tall"], rtol=0, atol=0)


def test_noise_without_correlations():
    parameters = {"single": torch.randn(1, 5), "column": torch.randn(5, 1, 1, 1), "constant": torch.ones(3, 5)}
    noisy = add_noise(parameters, 0.5)
    torch.testing.assert_close(noisy["single"], parameters["single"])
    torch.testing.assert_close(noisy["column"], parameters["column"])
    assert noisy["constant"].isfinite().all()


def test_the_input_stays(parameters):
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    add_noise(parameters, 0.5)
    orthogonalize(parameters)
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)


def test_orthogonal_rows_or_columns(parameters):
    result = orthogonalize(parameters, skip={"last"})
    assert list(result) == list(parameters)
    rows = result["conv"].flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(result["tall"].t() @ result["tall"], torch.eye(5), rtol=0, atol=1e-5)
    assert result["conv"].shape == (5, 3, 2, 7)
    assert result["last"] is parameters["last"]
    assert result["bias"] is parameters["bias"]
    assert orthogonalize(parameters, 1)["conv"] is parameters["conv"]


def test_signs_are_those_of_the_weight():
    """The first row keeps its direction, and an orthogonal matrix stays the same."""
    weight = torch.tensor([[0.0, -3.0], [2.0, 1.0]])
    torch.testing.assert_close(orthogonalize({"w": weight})["w"], torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    torch.testing.assert_close(orthogonalize({"w": rotation})["w"], rotation)


def test_double_precision():
    assert add_noise(orthogonalize({"w": torch.randn(3, 5).double()}), 0.1)["w"].dtype == torch.float64


@pytest.mark.parametrize("beta", [-1e-5, float("nan"), float("inf")])
def test_faulty_arguments(beta):
    with pytest.raises(ValueError, match="beta expected a number of at least 0"):
        add_noise({}, beta)
    with pytest.raises(ValueError, match="first expected a number of at least 0, got -1"):
        orthogonalize({}, -1)
