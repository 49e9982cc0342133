"""Networks inside of wrappers: adapters of peft, and what PyTorch itself makes of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .common import Made, Networks, image, tokens

# --- peft ------------------------------------------------------------------------------------------------------------

_LINEAR: Final = {"target_modules": ["q_proj", "v_proj"]}
_PROMPT: Final = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
# Configuration → options; those of layers get ``target_modules``, those of prompts the number of tokens.
_ADAPTERS: Final[dict[str, dict[str, Any]]] = {
    "LoraConfig": {"r": 4}, "AdaLoraConfig": {"init_r": 4, "total_step": 10}, "LoHaConfig": {"r": 4},
    "LoKrConfig": {"r": 4}, "OFTConfig": {"r": 0, "oft_block_size": 8}, "BOFTConfig": {"boft_block_size": 4},
    "HRAConfig": {"r": 4}, "HiraConfig": {"r": 4}, "VBLoRAConfig": {"r": 4, "num_vectors": 5, "vector_length": 4},
    "VeraConfig": {"r": 4}, "PveraConfig": {"r": 4}, "FourierFTConfig": {"n_frequency": 9},
    "C3AConfig": {"block_size": 8},
    "WaveFTConfig": {"n_frequency": 9}, "MissConfig": {"r": 4}, "RandLoraConfig": {"r": 4},
    "RoadConfig": {"group_size": 8},
    "ShiraConfig": {"r": 4}, "DeloraConfig": {"r": 4}, "GloraConfig": {"r": 4}, "GraloraConfig": {"r": 4,
    "gralora_k": 2},
    "OSFConfig": {}, "TinyLoraConfig": {"r": 2}, "UniLoraConfig": {"r": 4},
    "PsoftConfig": {"r": 4}, "LilyConfig": {"r": 4}, "PeanutConfig": {"r": 4}, "DeftConfig": {"r": 4}, "BeftConfig": {},
    "FrodConfig": {}, "AdamssConfig": {"r": 4},
}  # fmt: skip
_PROMPTS: Final[dict[str, dict[str, Any]]] = {
    "PromptTuningConfig": {}, "PromptEncoderConfig": {"encoder_hidden_size": 24}, "PrefixTuningConfig": {},
    "CPTConfig": {"cpt_token_ids": [1, 2, 3, 4], "cpt_mask": [1] * 4, "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "CartridgeConfig": {},
}  # fmt: skip


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=4, intermediate_size=48, use_cache=False)  # fmt: skip
    return LlamaForCausalLM(config)


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                               intermediate_size=48, image_size=32, patch_size=8))  # fmt: skip


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def peft() -> Networks:
    """Adapters of a small Llama, and some of other networks."""
    import peft as library

    def adapted(name: str, base: Callable[[], nn.Module] = _llama, given: Any = None, **options: Any) -> Made:
        model: nn.Module = library.get_peft_model(base(), getattr(library, name)(**options))  # type: ignore[arg-type]
        return model, {"input_ids": tokens()} if given is None else given

    def merged() -> Made:
        model = library.get_peft_model(_llama(), library.LoraConfig(r=4, **_LINEAR))  # type: ignore[arg-type]
        return model.merge_and_unload(), {"input_ids": tokens()}  # type: ignore[operator]

    def twice() -> Made:
        model: Any = library.get_peft_model(_llama(), library.LoraConfig(r=4, **_LINEAR))  # type: ignore[arg-type]
        model.add_adapter("second", library.LoraConfig(r=2, target_modules=["up_proj"]))
        model.base_model.set_adapter(["default", "second"])
        return model, {"input_ids": tokens()}

    pixels = {"pixel_values": image(32)}
    named = {
        name: lambda name=name, options=options: adapted(name, **{**_LINEAR, **options})
        for name, options in _ADAPTERS.items()
    } | {
        name: lambda name=name, options=options: adapted(name, **_PROMPT, **options)
        for name, options in _PROMPTS.items()
    }
    return named | {
        "IA3Config": lambda: adapted("IA3Config", target_modules=["k_proj", "v_proj", "down_proj"],
                                     feedforward_modules=["down_proj"]),
        "LNTuningConfig": lambda: adapted("LNTuningConfig", task_type="CAUSAL_LM"),
        "TrainableTokensConfig": lambda: adapted("TrainableTokensConfig", token_indices=[1, 3]),
        "AdaptionPromptConfig": lambda: adapted("AdaptionPromptConfig", adapter_len=4, adapter_layers=2,
                                                task_type="CAUSAL_LM"),
        "DoRA": lambda: adapted("LoraConfig", r=4, use_dora=True, **_LINEAR),
        "LoRA of all layers with biases": lambda: adapted("LoraConfig", r=4, target_modules="all-linear",
                                                          bias="all", lora_bias=True),
        "LoRA of the embedding": lambda: adapted("LoraConfig", r=4, target_modules=["embed_tokens", "lm_head"]),
        "LoRA of a vision transformer": lambda: adapted("LoraConfig", _vit, pixels, r=4,
                                                        target_modules=["q_proj", "v_proj"],
                                                        modules_to_save=["classifier"]),
        "LoRA of a convolutional network": lambda: adapted("LoraConfig", _plain, image(16), r=4,
                                                           target_modules=["0", "3", "7"]),
        "DoRA of a convolutional network": lambda: adapted("LoraConfig", _plain, image(16), r=4, use_dora=True,
                                                           target_modules=["3", "7"]),
        "LoHa of a convolutional network": lambda: adapted("LoHaConfig", _plain, image(16), r=4,
                                                           target_modules=["3", "7"]),
        "LoRA, merged": merged,
        "two LoRA adapters": twice,
    }  # fmt: skip


# --- what PyTorch makes of a network ---------------------------------------------------------------------------------


class Branches(nn.Module):
    """A small network with a condition on shapes and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.norm(x + self.left(x) + self.right(x) if x.size(-1) > 2 else x)
        return self.head(x.relu().mean((2, 3)))


class Calls(nn.Module):
    """Wraps a network: ``call(network, *args)`` is its forward pass."""

    def __init__(self, network: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.network, x)


class Masked(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tril()


def _functional(network: nn.Module, x: Tensor) -> Any:
    return torch.func.functional_call(network, dict(network.named_parameters()), (x,))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
    return nn.Sequential(nn.Linear(6, 12), nn.TransformerEncoder(layer, 2), nn.Linear(12, 3))


def _ensemble() -> nn.Module:
    """Networks that ``torch.func.vmap`` runs side by side."""

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            networks = [nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)) for _ in range(4)]
            self.base = [networks[0]]
            stacked = torch.func.stack_module_state(networks)[0]
            self.stack = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(v) for name, v in stacked.items()})

        def forward(self, x: Tensor) -> Tensor:
            def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
                return torch.func.functional_call(self.base[0], weights, (x,))

            weights = {name.replace("_", "."): value for name, value in self.stack.items()}
            return torch.vmap(one, in_dims=(0, None))(weights, x).mean(0)

    return Ensemble()


def _pruned() -> nn.Module:
    from torch.nn.utils import prune

    network = Branches()
    for layer in (network.left, network.right, network.head):
        prune.l1_unstructured(layer, "weight", amount=0.3)
    return network


def _quantised() -> nn.Module:
    """The network with fake quantisation, as for training."""
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))
            self.fakes = nn.ModuleList(FakeQuantize(MovingAverageMinMaxObserver) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            first, act, last = self.network
            x = self.fakes[0](F.linear(x, self.fakes[1](first.weight), first.bias))
            return self.fakes[2](F.linear(act(x), self.fakes[3](last.weight), last.bias))

    return Quantised()


def _averaged() -> nn.Module:
    from torch.optim.swa_utils import AveragedModel

    return AveragedModel(Branches())


def _symbolic() -> nn.Module:
    graph = torch.fx.symbolic_trace(nn.Sequential(_plain()))
    return torch.fx.Transformer(graph).transform()


def _fused() -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    return fuse(_plain().eval())


def _hooked() -> nn.Module:
    """Hooks that change what a layer is given and what it returns, and store features."""
    network = Branches()
    features: dict[str, Tensor] = {}
    network.left.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    network.right.register_forward_hook(lambda module, args, out: features.setdefault("right", out))
    network.norm.register_forward_hook(lambda module, args, out: out.sigmoid())
    return network


def _checkpointed() -> nn.Module:
    from torch.utils.checkpoint import checkpoint

    return Calls(_plain(), lambda network, x: checkpoint(network, x, use_reentrant=False))


def _spectral() -> nn.Module:
    network = Branches()
    for layer in (network.left, network.right):
        nn.utils.spectral_norm(layer)
    parametrizations.spectral_norm(network.head)
    return network


def _with(register: Callable[[nn.Module], Any]) -> nn.Module:
    network = Branches()
    for layer in (network.left, network.head):
        register(layer)
    return network


def _tied() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.body, self.head = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 20)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.body(self.embedding(ids))[0])

    return Tied()


def _gradients() -> nn.Module:
    """A force: the derivative of an energy by the position."""

    def force(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = network(x).sum()
            return energy, -torch.autograd.grad(energy, x, create_graph=True)[0]

    return Calls(nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1)), force)


def _lazy() -> nn.Module:
    network = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    network(image(16))
    return network


def _exported(network: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(network.eval(), (x,)).module()  # type: ignore[no-any-return]


def torch_wrappers() -> Networks:
    """A network as PyTorch's own tools wrap, rewrite and reparametrise it."""
    x, pixels = torch.rand(2, 6), image(16, batch=2)

    def unflattened() -> Made:
        return torch.export.unflatten(torch.export.export(Branches().eval(), (pixels,))), pixels

    return {
        "torch.compile": lambda: (torch.compile(Branches()), pixels),  # type: ignore[dict-item]
        "Module.compile": lambda: (_compiled(), pixels),
        "DataParallel": lambda: (nn.DataParallel(Branches()), pixels),
        "torch.jit.script": lambda: (torch.jit.script(Branches()), pixels),
        "torch.jit.trace": lambda: (torch.jit.trace(Branches().eval(), pixels), pixels),
        "a scripted part": lambda: (nn.Sequential(torch.jit.script(Branches()), nn.Linear(5, 3)), pixels),
        "torch.export": lambda: (_exported(Branches(), pixels), pixels),
        "torch.export of a transformer": lambda: (_exported(_encoder(), torch.rand(2, 5, 6)), torch.rand(2, 5, 6)),
        "torch.export, unflattened": unflattened,
        "torch.fx": lambda: (torch.fx.symbolic_trace(_plain()), pixels),
        "torch.fx, transformed": lambda: (_symbolic(), pixels),
        "fused batch norms": lambda: (_fused(), pixels),
        "functional_call": lambda: (Calls(Branches(), _functional), pixels),
        "an ensemble by vmap": lambda: (_ensemble(), x),
        "a Jacobian": lambda: (Calls(nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)),
                                     lambda network, x: torch.func.jacrev(network)(x[0])), x),
        "a derivative by autograd": lambda: (_gradients(), x),
        "checkpointing": lambda: (_checkpointed(), pixels),
        "weight norm, old": lambda: (_with(nn.utils.weight_norm), pixels),
        "weight norm": lambda: (_with(parametrizations.weight_norm), pixels),
        "spectral norm, old and new": lambda: (_spectral(), pixels),
        "orthogonal weights": lambda: (nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)), nn.Linear(6, 3)), x),
        "masked weights": lambda: (_with(lambda layer: parametrize.register_parametrization(layer, "weight", Masked())),
                                   pixels),
        "pruned weights": lambda: (_pruned(), pixels),
        "fake quantisation": lambda: (_quantised(), x),
        "an average of weights": lambda: (_averaged(), pixels),
        "hooks": lambda: (_hooked(), pixels),
        "a copy": lambda: (copy.deepcopy(Branches()), pixels),
        "half precision": lambda: (Branches().bfloat16(), pixels.bfloat16()),
        "channels last": lambda: (Branches().to(memory_format=torch.channels_last), pixels),  # type: ignore[call-overload]
        "autocast": lambda: (Calls(Branches(), _autocast), pixels),
        "tied embeddings": lambda: (_tied(), tokens(size=20)),
        "a frozen network": lambda: (Branches().requires_grad_(False), pixels),
        "lazy layers": lambda: (_lazy(), pixels),
        "a nested transformer": lambda: (_encoder(), torch.rand(2, 5, 6)),
    }  # fmt: skip


def _autocast(network: nn.Module, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return network(x)


def _compiled() -> nn.Module:
    network = Branches()
    network.compile()
    return network
