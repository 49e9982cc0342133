import torch

from ghn_pyg.training.seeds import preserve_rng, seed_of, seed_rng

CPU = torch.device("cpu")


def test_a_literal_seed():
    """The same on every machine and with every version: a change here breaks the resuming of runs."""
    assert seed_of(3, 5, 7) == 8051511506806774937


def test_the_generator_of_mps_is_preserved(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    monkeypatch.setattr(torch.mps, "set_rng_state", calls.append)
    monkeypatch.setattr(torch.mps, "manual_seed", calls.append)
    with preserve_rng(torch.device("mps")):
        seed_rng(torch.device("mps"), 3)
    assert calls == [seed_of(3), "before"]


def test_generators_are_preserved():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    drawn = []
    for numbers in ((5, 7), (5, 7), (7, 5)):
        with preserve_rng(CPU):
            seed_rng(CPU, *numbers)
            drawn.append(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
