"""The Graph HyperNetwork: embed → encode → decode."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn
from torch_geometric.data import Batch, Dataset

from ..graph.arch_data import ArchData
from ..graph.node_types import PRIMITIVES
from ..nn.decoders import ConvDecoder, MLPDecoder, VectorDecoder
from ..nn.node_encodings import Embedding, ShapeEncoding
from ..tracing.parameter_coverage import check_coverage
from ..tracing.trace import arguments, from_module
from .apply import destinations, materialize
from .builtin_encoders import build_encoder
from .checkpoints.folder import check_state, read_checkpoint, write_folder
from .checkpoints.hub import DEFAULT_NAME, resolve
from .config import GHNConfig
from .decoding import ParameterDecoder, Target, fill_, targets
from .encoders import PUBLISHED_ENCODERS
from .prediction import Prediction

Architecture = nn.Module | ArchData
CLASSIFIER_KEPT: Final = "it belongs to the classification layer"


def build_decoder(config: GHNConfig) -> ParameterDecoder:
    """The decoder of a configuration."""
    kinds: dict[str, type[ConvDecoder | MLPDecoder]] = {"conv": ConvDecoder, "mlp": MLPDecoder}
    weight = kinds[config.decoder](
        config.hidden_channels, config.max_channels, config.max_kernel_size, config.num_classes, config.kernel_crop
    )
    vector = VectorDecoder(config.hidden_channels, config.max_channels, config.num_classes)
    return ParameterDecoder(weight, vector, config.weight_norm)


_MODEL_CARD = """---
{{ card_data }}
---

A Graph HyperNetwork, which predicts all parameters of a neural network from its architecture:

```python
import torchvision
from ghn_pyg import from_pretrained

ghn = from_pretrained("PATH_OR_REPOSITORY")
model = ghn(torchvision.models.resnet50())
```
"""


class GHN(
    nn.Module,
    ModelHubMixin,
    library_name="ghn_pyg",
    tags=["graph-hypernetwork"],
    model_card_template=_MODEL_CARD,
):
    r"""Predicts all parameters of a network from its architecture.

    GHN-3 ("Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?", arXiv 2303.04143), GHN-2
    ("Parameter Prediction for Unseen Deep Architectures", arXiv 2110.13100), GHN-1 (arXiv 1810.05749) and an MLP
    baseline, by ``config``: node types and shapes are embedded, encoded along the graph, and decoded into tensors.

    Args:
        config: What to build; see :meth:`GHNConfig.preset`.

    Shapes:
        - **input:** a network, its graph, or a list or batch of them
        - **output:** its parameters by name

    Example:
        >>> import torchvision
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10))
        >>> model = ghn(torchvision.models.resnet18(num_classes=10))
        >>> prediction = ghn.predict(model)
        >>> prediction["fc.weight"].shape
        torch.Size([10, 512])
    """

    def __init__(self, config: GHNConfig) -> None:
        super().__init__()
        if not isinstance(config, GHNConfig):
            raise TypeError(f"GHN expected a GHNConfig (see GHNConfig.preset), got {type(config).__name__}")
        self.config = config
        width = config.hidden_channels
        self.node_embedding = Embedding(len(PRIMITIVES), width)
        self.shape_encoding = ShapeEncoding(width, config.num_classes, config.max_kernel_size)
        self.encoder = build_encoder(config)
        self.norm: nn.Module = nn.LayerNorm(width) if config.final_norm else nn.Identity()
        self.decoder = build_decoder(config)
        self._shrink_last_layers()  # each part has drawn its own parameters

    @property
    def device(self) -> torch.device:
        """Where the GHN's weights are."""
        return self.node_embedding.weight.device

    def reset_parameters(self) -> None:
        """Initialises for training from scratch, as the constructor does: after the same seed with the same values."""
        self.load_state_dict(GHN(self.config).state_dict())

    def _shrink_last_layers(self) -> None:
        """GHN-3 starts with small predictions."""
        if self.config.encoder != "ghn3":
            return
        with torch.no_grad():
            for layer in (*self.decoder.vector.last_layers(), *self.decoder.weight.last_layers()):
                layer.weight.div_(5)
                layer.bias.zero_()

    @classmethod
    def from_state(cls, config: GHNConfig, state: Mapping[str, Tensor]) -> GHN:
        """A GHN with the given weights.

        Args:
            config: Its configuration.
            state: Tensors by name; they are copied, half precision to single precision.

        Raises:
            CheckpointError: If names, shapes or types do not fit the configuration; the message lists them.
        """
        with torch.device("meta"):
            ghn = cls(config)
        if config.encoder not in PUBLISHED_ENCODERS:  # it may hold what no file does, which has no value on "meta"
            ghn.encoder = build_encoder(config)
        check_state({name: tensor.shape for name, tensor in ghn.state_dict().items()}, state)
        copies = {
            name: tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            for name, tensor in state.items()
        }
        ghn.load_state_dict(copies, assign=True)
        return ghn.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # ours has a default, and options by name alone
        cls, name: str | os.PathLike[str] = DEFAULT_NAME, **options: Any
    ) -> GHN:
        """Loads a GHN from disk or from the Hugging Face hub, without running anything that a file contains.

        Args:
            name: The path of a file or folder, which is used without asking the hub; a published name such as
                ``"ghn3tm8"``; or ``"user/repository"`` of a GHN that was saved with :meth:`save_pretrained`.
            options: ``repo_id``, ``revision``, ``cache_dir``, ``local_files_only`` and ``token``; see
                :func:`ghn_pyg.models.checkpoints.hub.resolve`.

        Returns:
            The GHN in evaluation mode, on the CPU.

        Raises:
            CheckpointError: If it cannot be found, downloaded or read; the message says what was tried.

        Example:
            >>> import tempfile
            >>> config = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     GHN(config).save_pretrained(folder)
            ...     GHN.from_pretrained(folder).config == config
            True
        """
        return cls.from_state(*read_checkpoint(resolve(name, **options)))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Saves configuration and weights as ``config.json`` and ``model.safetensors``, with a model card.

        Both files are complete before either replaces an older one.

        Args:
            save_directory: Folder to write into; made if missing.
            config: Not used: the GHN's own configuration is saved.
            repo_id: Repository to push to; the folder's name by default.
            push_to_hub: Whether to push to the Hugging Face hub too.
            model_card_kwargs: Values for the template of the model card.
            push_to_hub_kwargs: Further arguments of ``push_to_hub``.

        Returns:
            The URL of the commit when pushed.

        Raises:
            CheckpointError: If it cannot be written; an older checkpoint is left as it was.
        """
        folder = Path(save_directory)
        write_folder(folder, self.config, self.state_dict())
        if not (card := folder / "README.md").exists():
            self.generate_model_card(**(model_card_kwargs or {})).save(card)
        if not push_to_hub:
            return None
        url = self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)
        return str(url)

    def embed(self, networks: Architecture | Sequence[Architecture], keep_classifier: bool = False) -> Tensor:
        """Embeds the nodes of one or more networks.

        Args:
            networks: A network, its graph, a list of either, a :class:`torch_geometric.data.Batch` of graphs, or a
                data set of them.
            keep_classifier: Whether classification layers will not be predicted. Their shape is then encoded as if
                they had the GHN's own number of classes.

        Returns:
            Embeddings of shape :math:`(N, d)`, of all nodes one network after another.
        """
        graph, _ = _batch(networks)
        device = self.device
        shape, classifier = graph.node_shape.to(device), graph.classifier.to(device)
        if keep_classifier:
            shape = shape.clone()
            shape[classifier, 0] = self.config.num_classes
        x = self.node_embedding(graph.node_type.to(device)) + self.shape_encoding(shape)
        batch = None if graph.get("batch") is None else graph.batch.to(device)
        x = self.encoder(x, graph.edge_index.to(device), graph.distance.to(device), batch)
        return self.norm(x)

    def embed_graphs(self, networks: Architecture | Sequence[Architecture]) -> Tensor:
        """Embeds whole networks, each as the mean over its nodes: for retrieval and for predicting properties.

        From "Parameter Prediction for Unseen Deep Architectures" (arXiv 2110.13100).

        Args:
            networks: A network, its graph, a list of either, a :class:`torch_geometric.data.Batch` of graphs, or a
                data set of them.

        Returns:
            Embeddings of shape :math:`(G, d)`; of shape :math:`(d,)` for a single network.

        Example:
            >>> import torchvision
            >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
            >>> ghn.embed_graphs([torchvision.models.resnet18(), torchvision.models.alexnet()]).shape
            torch.Size([2, 8])
        """
        graph, single = _batch(networks)
        nodes = self.embed(graph)
        means = torch.stack([part.mean(0) for part in nodes.split(graph.graph_sizes)])
        return means[0] if single else means

    def forward(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        keep_classifier: bool = False,
        seed: int | None = None,
        strict: bool = False,
    ) -> nn.Module:
        """Initialises a network in place with predicted parameters.

        Batch-norm running statistics are no parameters and stale afterwards: see :func:`~ghn_pyg.batch_statistics`
        and :func:`~ghn_pyg.recalibrate`.

        Args:
            model: The network, on any device.
            example_inputs: What its forward pass takes, as for :func:`~ghn_pyg.from_module`.
            keep_classifier: Leave the classification layer as it is.
            seed: Seed of the rows of class tokens; drawn from PyTorch's global generator by default.
            strict: Raise an error, and change nothing, where a weight matrix would keep its values.

        Returns:
            ``model``, whose other parameters (``from_module(model).kept``) keep their values.

        Raises:
            TypeError: If ``model`` is no module, or ``example_inputs`` are no inputs.
            CoverageError: If ``strict``, and a weight matrix is not predicted (see :func:`~ghn_pyg.coverage`).
            TracingError: If the network does not accept the inputs, an image by default.
        """
        if isinstance(model, (ArchData, list, tuple)) or isinstance(example_inputs, ArchData):
            raise TypeError(
                f"ghn(model, example_inputs) initialises one torch.nn.Module in place, got {type(model).__name__} and "
                f"{type(example_inputs).__name__}; call ghn.predict(...) for the parameters of graphs and lists, or "
                "ghn.initialize(model, graph)"
            )
        args, kwargs = arguments(model, example_inputs)
        if any(map(nn.parameter.is_lazy, model.parameters())):
            materialize(model, args, kwargs)
        graph = from_module(model, example_inputs)
        return self.initialize(model, graph, keep_classifier=keep_classifier, seed=seed, strict=strict)

    def initialize(
        self,
        model: nn.Module,
        graph: ArchData,
        *,
        keep_classifier: bool = False,
        seed: int | None = None,
        strict: bool = False,
    ) -> nn.Module:
        """Like ``ghn(model)``, with a graph that was built before (from example inputs, say).

        Raises:
            TypeError: If ``graph`` is none.
            ValueError: If the graph belongs to another network. Nothing is written then.
        """
        if not isinstance(graph, ArchData):
            raise TypeError(
                f"initialize expected a graph, got {type(graph).__name__}; build it by from_module(model, "
                "example_inputs), or call ghn(model, example_inputs)"
            )
        tensors = destinations(model, graph)
        if strict:
            check_coverage(graph)
        with torch.no_grad():
            self.decode(graph, keep_classifier, lambda target: tensors[target.spec.name], seed)
        return model

    def predict(
        self,
        networks: Architecture | Sequence[Architecture],
        *,
        keep_classifier: bool = False,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
        differentiable: bool = False,
        strict: bool = False,
    ) -> Any:
        """Predicts parameters and changes nothing.

        Args:
            networks: A network, its graph, a list of either, a :class:`torch_geometric.data.Batch` of graphs, or a
                data set of them.
            keep_classifier: Leave classification layers out.
            seed: Seed of the rows of class tokens; drawn from PyTorch's global generator by default.
            dtype: Type of the predicted tensors; the GHN's own by default.
            differentiable: Keep the graph of gradients with respect to the GHN's weights. Use the prediction with
                :func:`torch.func.functional_call`.
            strict: Raise a :class:`~ghn_pyg.CoverageError` where a weight matrix is not predicted.

        Returns:
            A :class:`Prediction` (name → tensor on the GHN's device), or a list of them for a list or batch.
        """
        batch, single = _batch(networks)
        if strict:
            check_coverage(batch)
        graphs = [batch] if batch.get("ptr") is None else batch.to_data_list()
        predictions = [Prediction(dict(graph.kept), dict(graph.tied)) for graph in graphs]
        weight = self.node_embedding.weight
        for target in targets(batch):
            name, prediction = target.spec.name, predictions[target.graph]
            if keep_classifier and target.classifier:
                prediction.kept[name] = CLASSIFIER_KEPT
            else:
                prediction[name] = torch.empty(target.spec.shape, dtype=dtype or weight.dtype, device=weight.device)
        with torch.set_grad_enabled(differentiable):
            self.decode(batch, keep_classifier, lambda target: predictions[target.graph][target.spec.name], seed)
        return predictions[0] if single else predictions

    def decode(self, graph: ArchData, keep_classifier: bool, out: Callable[[Target], Tensor], seed: int | None) -> None:
        """Decodes all parameters of a graph or batch into the tensors that ``out`` gives, one after another."""
        x = self.embed(graph, keep_classifier).to(self.node_embedding.weight.dtype)
        # Under autocast the encoder alone runs in half precision: decoded weights need all of their digits.
        with torch.autocast(x.device.type, enabled=False):
            for target, block in self.decoder(x, _wanted(graph, keep_classifier)):
                fill_(out(target), target.spec, block, seed)


def _wanted(graph: ArchData, keep_classifier: bool) -> list[Target]:
    """What to decode; a parameter without elements has nothing to decode."""
    return [
        target
        for target in targets(graph)
        if 0 not in target.spec.shape and not (keep_classifier and target.classifier)
    ]


def _batch(networks: Any) -> tuple[ArchData, bool]:
    """What to embed, and whether it is a single network."""
    if isinstance(networks, ArchData):
        return networks, networks.get("ptr") is None
    if isinstance(networks, nn.Module):
        return from_module(networks), True
    if isinstance(networks, (list, tuple, Dataset)) and len(networks):
        graphs = [item if isinstance(item, ArchData) else from_module(item) for item in networks]
        return Batch.from_data_list(graphs), False
    raise TypeError(
        "networks expected a torch.nn.Module, an ArchData, a non-empty list of them, a Batch or a data set, got "
        f"{'an empty ' if isinstance(networks, (list, tuple, Dataset)) else ''}{type(networks).__name__}"
    )


from_pretrained = GHN.from_pretrained
