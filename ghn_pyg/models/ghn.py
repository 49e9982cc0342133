"""The Graph HyperNetwork: embed → encode → decode."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn
from torch_geometric.data import Batch, Dataset

from ..graph.arch_data import ArchData
from ..graph.node_types import PRIMITIVES
from ..nn.node_encodings import Embedding, ShapeEncoding
from ..tracing.parameter_coverage import CoverageError, check_coverage
from ..tracing.trace import arguments, from_module
from ..utils.atomic_files import write_text
from ..utils.memory_guard import CheckedLayers, check_memory
from ..utils.suggest import some
from ..utils.warn_once import warn_once
from .apply import initialize_lazy_layers, writable_parameters
from .checkpoints.errors import CheckpointError
from .checkpoints.locate import DEFAULT_NAME, resolve
from .checkpoints.read import read_checkpoint
from .checkpoints.write import write_folder
from .config import GHNConfig
from .encoders import PUBLISHED_ENCODERS, build_encoder
from .fill_parameter import fill_
from .parameter_decoder import NodeParameter, build_decoder, decoder_bytes, node_parameters
from .prediction import Prediction

Architecture = nn.Module | ArchData
CLASSIFIER_KEPT: Final = "it belongs to the classification layer"


class GHN(
    nn.Module,
    ModelHubMixin,
    library_name="ghn_pyg",
    tags=["graph-hypernetwork"],
    model_card_template=resources.files(__package__).joinpath("model_card.md").read_text(encoding="utf-8"),
):
    r"""Predicts all parameters of a network from its architecture.

    GHN-3 ("Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?", arXiv 2303.04143), GHN-2
    ("Parameter Prediction for Unseen Deep Architectures", arXiv 2110.13100), GHN-1 (arXiv 1810.05749) or an MLP
    baseline, by ``config``: node types and shapes are embedded, encoded along the graph, and decoded into tensors.

    Args:
        config: What to build; see :meth:`GHNConfig.preset`. Its memory is checked before it is allocated.

    Shapes:
        - **input:** a network, its graph, or a list or batch of them
        - **output:** its parameters by name

    Example:
        >>> import torchvision
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10))
        >>> model = ghn(torchvision.models.resnet18(num_classes=10))
        >>> ghn.predict(model)["fc.weight"].shape
        torch.Size([10, 512])
    """

    def __init__(self, config: GHNConfig) -> None:
        super().__init__()
        if not isinstance(config, GHNConfig):
            raise TypeError(f"GHN expected a GHNConfig (see GHNConfig.preset), got {type(config).__name__}")
        what = f"the decoder of {config.num_classes:,} classes and {config.max_channels:,} channels"
        check_memory(decoder_bytes(config), what, device=torch.get_default_device())
        self.config = config
        width = config.hidden_channels
        self.node_embedding = Embedding(len(PRIMITIVES), width)
        self.shape_encoding = ShapeEncoding(width, config.num_classes, config.max_kernel_size)
        with CheckedLayers():
            self.encoder = build_encoder(config)
            self.norm: nn.Module = nn.LayerNorm(width) if config.final_norm else nn.Identity()
            self.decoder = build_decoder(config)
        if config.encoder == "ghn3":  # starts with small predictions
            with torch.no_grad():
                for layer in (*self.decoder.vector.last_layers(), *self.decoder.weight.last_layers()):
                    layer.weight.div_(5)
                    layer.bias.zero_()

    @property
    def device(self) -> torch.device:
        """Where the GHN's weights are."""
        return self.node_embedding.weight.device

    def reset_parameters(self) -> None:
        """Initialises all parameters for training from scratch, as the constructor does."""
        self.load_state_dict(GHN(self.config).state_dict())

    @classmethod
    def from_state(cls, config: GHNConfig, state: Mapping[str, Tensor]) -> GHN:
        """Builds a GHN with the given weights.

        Args:
            config: Its configuration.
            state: Tensors by name; they are copied, half precision to single precision.

        Raises:
            CheckpointError: If names or shapes do not fit the configuration, or values are not finite; the message
                lists them.
        """
        with torch.device("meta"):
            ghn = cls(config)
        try:
            ghn.load_state_dict(state, assign=True)  # compares names and shapes, before anything takes memory
        except RuntimeError as error:
            listed = " ".join(str(error).split())[:1000]
            raise CheckpointError(
                f"the checkpoint does not fit the model, build it with the checkpoint's own configuration: {listed}"
            ) from error
        if config.encoder not in PUBLISHED_ENCODERS:  # buffers that are not saved have no values on "meta"
            ghn.encoder = build_encoder(config)
        copies = {
            name: tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            for name, tensor in state.items()
        }
        if damaged := [name for name, tensor in copies.items() if not all(map(torch.isfinite, tensor.aminmax()))]:
            raise CheckpointError(
                f"it has values that are infinite or not a number in {some(damaged)}; take a checkpoint of before "
                "training diverged"
            )
        ghn.load_state_dict(copies, assign=True)
        return ghn.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # ours has a default, and options by name alone
        cls, name: str | os.PathLike[str] = DEFAULT_NAME, **options: Any
    ) -> GHN:
        """Loads a GHN from disk or from the Hugging Face hub, without running anything that a file contains.

        Args:
            name: The path of a file or folder, which is never looked up on the hub; a published name such as
                ``"ghn3tm8"``; or ``"user/repository"`` of a GHN that was saved with :meth:`save_pretrained`.
            options: ``repo_id``, ``revision``, ``cache_dir``, ``local_files_only``, ``force_download`` and ``token``;
                see :func:`ghn_pyg.models.checkpoints.resolve`.

        Returns:
            The GHN in evaluation mode, on the CPU.

        Raises:
            CheckpointError: If it cannot be located, downloaded or read; the message says what was tried.

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
        self, save_directory: str | os.PathLike[str], *, config: Any = None, repo_id: str | None = None,
        push_to_hub: bool = False, model_card_kwargs: dict[str, Any] | None = None, **push_to_hub_kwargs: Any,
    ) -> str | None:  # fmt: skip
        """Saves ``config.json`` and ``model.safetensors``, with a model card unless the folder has a ``README.md``.

        Args:
            save_directory: Folder to write into, created if missing.
            config: Ignored; the GHN's own configuration is saved.
            repo_id: Repository to push to; the folder's name by default.
            push_to_hub: Whether to push to the Hugging Face hub too.
            model_card_kwargs: Values for the model card.
            push_to_hub_kwargs: Arguments of ``push_to_hub``.

        Returns:
            The URL of the commit if pushed.

        Raises:
            CheckpointError: If it cannot be written; the folder then has the old checkpoint, or the new one, whole.
        """
        folder = Path(save_directory)
        write_folder(folder, self.config, self.state_dict())
        if not (card := folder / "README.md").exists():
            write_text(card, str(self.generate_model_card(**(model_card_kwargs or {}))))
        if not push_to_hub:
            return None
        url = self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)
        return str(url)

    def embed(self, networks: Architecture | Sequence[Architecture], keep_classifier: bool = False) -> Tensor:
        """Embeds the nodes of one or more networks.

        Args:
            networks: As for :meth:`predict`.
            keep_classifier: Encode the shape of classification layers, which will not be predicted, as if they had
                the GHN's own number of classes.

        Returns:
            Embeddings of shape :math:`(N, d)`, of all nodes one network after another.
        """
        graph, _ = _to_graph(networks)
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
            networks: As for :meth:`predict`.

        Returns:
            Embeddings of shape :math:`(G, d)`; of shape :math:`(d,)` for a single network.

        Example:
            >>> import torchvision
            >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
            >>> ghn.embed_graphs([torchvision.models.resnet18(), torchvision.models.alexnet()]).shape
            torch.Size([2, 8])
        """
        graph, single = _to_graph(networks)
        nodes = self.embed(graph)
        means = torch.stack([part.mean(0) for part in nodes.split(graph.graph_sizes)])
        return means[0] if single else means

    def forward(self, model: nn.Module, example_inputs: Any = None, **options: Any) -> nn.Module:
        """Initialises a network in place with predicted parameters.

        Running statistics of batch norms are not parameters, and are stale afterwards: see
        :func:`~ghn_pyg.batch_statistics` and :func:`~ghn_pyg.recalibrate`.

        Args:
            model: The network, on any device. Lazy layers get their parameters by a forward pass, as in PyTorch.
            example_inputs: Inputs of its forward pass, as for :func:`~ghn_pyg.from_module`: a tensor of any layout, an
                object that holds tensors, such as PyG's ``Data``, a tuple of arguments, or a mapping of keyword
                arguments.
            options: ``keep_classifier``, ``seed`` and ``strict``, as for :meth:`initialize`.

        Returns:
            ``model``, whose other parameters (``from_module(model).kept``) keep their values.

        Raises:
            TypeError: If ``model`` is not a module, or ``example_inputs`` are not inputs.
            ValueError: If a predicted parameter cannot be written. Nothing is written then.
            CoverageError: If ``strict``, and a weight matrix is not predicted (see :func:`~ghn_pyg.coverage`), or the
                GHN is for other classes.
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
            initialize_lazy_layers(model, args, kwargs)
        return self.initialize(model, from_module(model, example_inputs), **options)

    def initialize(
        self, model: nn.Module, graph: ArchData, *, keep_classifier: bool = False, seed: int | None = None,
        strict: bool = False,
    ) -> nn.Module:  # fmt: skip
        """Like ``ghn(model)``, with a graph that was built before.

        Args:
            model: The network.
            graph: Its graph.
            keep_classifier: Leave the classification layer as it is.
            seed: Seed of the rows of class tokens; they come from PyTorch's global generator by default.
            strict: Raise an error, and change nothing, if a weight matrix would keep its values, or the GHN is for
                other classes.

        Raises:
            TypeError: If ``graph`` is not a graph.
            ValueError: If the graph belongs to another network, or a predicted parameter cannot be written, such as one
                whose elements share memory. Nothing is written then.
        """
        if not isinstance(graph, ArchData):
            raise TypeError(
                f"initialize expected a graph, got {type(graph).__name__}; build it by from_module(model, "
                "example_inputs), or call ghn(model, example_inputs)"
            )
        parameters = writable_parameters(model, graph, keep_classifier)
        self.check_classes(graph, keep_classifier, strict)
        if strict:
            check_coverage(graph)
        with torch.no_grad():
            self.decode(graph, keep_classifier, lambda parameter: parameters[parameter.spec.name], seed)
        return model

    def predict(
        self, networks: Architecture | Sequence[Architecture], *, keep_classifier: bool = False,
        seed: int | None = None, dtype: torch.dtype | None = None, differentiable: bool = False, strict: bool = False,
    ) -> Any:  # fmt: skip
        """Predicts parameters and changes nothing.

        Args:
            networks: A network, its graph, a list of either, a :class:`torch_geometric.data.Batch` of graphs, or a
                data set of them.
            keep_classifier: Leave classification layers out.
            seed: Seed of the rows of class tokens; they come from PyTorch's global generator by default.
            dtype: Type of the predicted tensors; the GHN's own by default.
            differentiable: Keep the graph of gradients with respect to the GHN's weights. Use the prediction with
                :func:`torch.func.functional_call`.
            strict: Raise a :class:`~ghn_pyg.CoverageError` if a weight matrix is not predicted, or the GHN is for
                other classes.

        Raises:
            MemoryError: If it does not fit into the free memory.

        Returns:
            A :class:`Prediction` (name → tensor on the GHN's device), or a list of them for a list or batch.
        """
        batch, single = _to_graph(networks)
        self.check_classes(batch, keep_classifier, strict)
        if strict:
            check_coverage(batch)
        graphs = [batch] if batch.get("ptr") is None else batch.to_data_list()
        predictions = [Prediction(dict(graph.kept), dict(graph.tied)) for graph in graphs]
        like = self.node_embedding.weight.new_empty(0, dtype=dtype)
        parameters = node_parameters(batch)
        needed = sum(math.prod(parameter.spec.shape) for parameter in parameters) * like.itemsize
        check_memory(needed, "the prediction", "predict to disk (predict_shards, --shards)", like.device)
        for parameter in parameters:
            name, prediction = parameter.spec.name, predictions[parameter.graph]
            if keep_classifier and parameter.classifier:
                prediction.kept[name] = CLASSIFIER_KEPT
            else:
                prediction[name] = like.new_empty(parameter.spec.shape)
        with torch.set_grad_enabled(differentiable):
            self.decode(batch, keep_classifier, lambda p: predictions[p.graph][p.spec.name], seed)
        return predictions[0] if single else predictions

    def check_classes(self, graph: ArchData, keep_classifier: bool = False, strict: bool = False) -> None:
        """Warns, or raises a CoverageError if ``strict``, if a network has other classes than the GHN.

        The rows of a classification layer are those of the GHN's classes: for more classes it repeats them. Fewer
        classes are an error if it is known what the GHN was trained for.
        """
        here = self.config.num_classes
        for classes in set() if keep_classifier else set(graph.node_shape[graph.classifier, 0].tolist()) - {0, here}:
            if classes < here and self.config.trained_for is None:
                continue
            message = (
                f"the GHN is for {here:,} classes and a network for {classes:,}, for which the GHN "
                f"{'repeats its rows' if classes > here else 'takes its first rows'}; keep the classification layer "
                "(keep_classifier, --keep-classifier)"
            )
            if strict:
                raise CoverageError(message)
            warn_once(message)

    def decode(
        self, graph: ArchData, keep_classifier: bool, out: Callable[[NodeParameter], Tensor], seed: int | None
    ) -> None:
        """Decodes the parameters of a graph or batch, one after another, into the tensors that ``out`` returns."""
        x = self.embed(graph, keep_classifier).to(self.node_embedding.weight.dtype)
        parameters = [
            parameter
            for parameter in node_parameters(graph)
            if 0 not in parameter.spec.shape and not (keep_classifier and parameter.classifier)
        ]
        # Under autocast only the encoder runs in half precision: decoded weights need all of their digits.
        with torch.autocast(x.device.type, enabled=False):
            for parameter, block in self.decoder(x, parameters):
                fill_(out(parameter), parameter.spec, block, seed)


def _to_graph(networks: Any) -> tuple[ArchData, bool]:
    """The graph or batch of networks, and whether it is a single network."""
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
