import torch

from ghn_pyg.training.seeds import reseed, restored, seed_of

CPU = torch.device("cpu")


def test_a_literal_seed():
    """The same on every machine and with every version: a change here breaks the resuming of runs."""
    assert seed_of(3, 5, 7) == 8051511506806774937


def test_the_generator_of_mps_goes_on_as_well(monkeypatch):
    """Without such a device: what it is told."""
    told = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    monkeypatch.setattr(torch.mps, "set_rng_state", told.append)
    monkeypatch.setattr(torch.mps, "manual_seed", told.append)
    with restored(torch.device("mps")):
        reseed(torch.device("mps"), 3)
    assert told == [seed_of(3), "before"]


def test_generators_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    drawn = []
    for numbers in ((5, 7), (5, 7), (7, 5)):
        with restored(CPU):
            reseed(CPU, *numbers)
            drawn.append(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
