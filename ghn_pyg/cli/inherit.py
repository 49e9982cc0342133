"""``ghn-pyg inherit``: initialises a network from a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from ..utils.suggest import some
from . import options
from .files import safetensors_file
from .options import SUBJECTS, argument, option
from .terminal import counted, fail, print_rows, status, user_errors

_MEASURED: Final = 256  # images


def inherit(
    arch: Annotated[str, argument("ARCH", f"The network to initialise: {SUBJECTS}.")],
    source: Annotated[
        str,
        option(
            "FILE|NAME",
            "A network that `ghn-pyg finetune --out` saved, a file of weights with --teacher, or a network of "
            "torchvision or timm, whose weights are downloaded.",
            "--from",
        ),
    ],
    out: Annotated[Path, option("FILE.safetensors", "Save the network, for `ghn-pyg finetune --pretrained FILE`.")],
    teacher: Annotated[str | None, option("NAME", "The network that a file of weights belongs to.")] = None,
    images: Annotated[
        str | None, option("NAME", "Images to measure the networks on; by default those that the teacher learned.")
    ] = None,
    data: options.DataFolder = Path("data"),
    image_size: Annotated[
        int | None, option("PIXELS", "Height and width of the images, if not the teacher's, or 224.", min=4)
    ] = None,
    num_classes: Annotated[
        int | None, option("N", "Number of classes, if not the teacher's.", min=1, max=options.MAX_CLASSES)
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Initialise a network of any size from a trained one, without training."""
    options.check_single_process()
    options.check_file(out, [".safetensors"])
    with status("Loading"), user_errors(ImportError):
        import torch
        from safetensors.torch import save_model

        from ..data.images import ImagesError
        from ..data.load import load_images
        from ..evaluation.accuracy import Batches, evaluation_mode, measure
        from ..evaluation.subjects import named_subject, trained_subject
        from ..finetuning.pretrained_weights import DEFAULT, load_pretrained
        from ..finetuning.saved_network import NetworkInfo, read_info, save_network
        from ..starts.inherit import inheritance, write

    file = Path(source).expanduser()
    info = read_info(file) if file.is_file() else None
    if info is None and file.is_file() and teacher is None:
        fail(f"{file} does not say which network it holds; name it with --teacher")
    name = teacher or (info.architecture if info else source)
    learned, pixels = (info.num_classes, info.image_size) if info else (1000, image_size or 224)
    size, classes = image_size or pixels, num_classes or learned
    with status(f"Loading {name}"), user_errors(ValueError, ImportError, OSError):
        if info:
            trained = trained_subject(name, file, learned, pixels, info.auxiliary).build()
        else:
            trained = named_subject(name, learned, pixels).build()
            load_pretrained(trained, name, str(file) if file.is_file() else DEFAULT, pixels)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = named_subject(arch, classes, size).build()
        inputs, dataset = torch.zeros(2, 3, size, size), None
        if where := images or (info.data if info else None):
            normalization = (info.mean, info.std) if info else None
            dataset = load_images(where, data, image_size=size, normalization=normalization)
            inputs = dataset.train.batch(range(min(_MEASURED, len(dataset.train))))[0]
    with status(f"{arch} inherits from {name}"), user_errors(ValueError, ImagesError):
        plan = inheritance(network, trained, inputs)
        write(network, plan)
    rows = [
        ("network", counted(sum(each.numel() for each in network.parameters()), "parameter")),
        ("inherited", counted(len(plan.sources), "tensor")),
    ]
    if plan.identities:
        rows.append(("identities", f"new blocks pass on their input by {some(sorted(plan.identities))}"))
    if plan.own:
        rows.append(("not inherited", some(plan.own)))
    about: NetworkInfo | None = None
    if dataset is not None:
        for label, each in {"teacher": trained, arch: network}.items():
            if dataset.num_classes == classes == learned:
                recalibrated = evaluation_mode(each, "recalibrated", dataset, seed, "cpu")
                with status("Measuring"), user_errors(ImagesError), recalibrated:
                    accuracy = measure(each, Batches(dataset.test))
                rows.append((label, f"{accuracy.top1:.1%} of {len(dataset.test):,} test images of {dataset.name}"))
        about = NetworkInfo.of_images(arch, source, dataset).replace(num_classes=classes)
    with user_errors(OSError), safetensors_file(out) as unfinished:
        save_network(network, unfinished, about) if about else save_model(network, str(unfinished))
    print_rows(f"{arch} from {source}", [*rows, ("saved", str(out))])
