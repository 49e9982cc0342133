"""Further libraries of networks for images."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any, Final

import torch
from torch import Tensor, nn

from .common import Made, Networks, built, image, tokens

# --- vit_pytorch -----------------------------------------------------------------------------------------------------

_VIT: Final[dict[str, Any]] = {
    "image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 24, "depth": 2, "heads": 2, "mlp_dim": 32,
    "cls_depth": 1, "max_tokens_per_depth": (9, 5), "freq_patch_size": 8, "num_residual_streams": 2, "frames": 4,
    "image_patch_size": 8, "frame_patch_size": 2, "spatial_depth": 1, "temporal_depth": 1, "seq_len": 32, "ndim": 3,
    "input_shape": (8, 8, 8), "max_frames": 4, "num_slots": 4, "masking_ratio": 0.5,
}  # fmt: skip
_VIT_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "cct.CCT": {"img_size": 32, "embedding_dim": 24, "num_layers": 2, "num_heads": 2, "num_classes": 5},
    "cct_3d.CCT": {"img_size": 32, "num_frames": 4, "embedding_dim": 24, "num_layers": 2, "num_heads": 2,
                   "num_classes": 5},
    "cross_vit.CrossViT": {"sm_dim": 24, "lg_dim": 24, "sm_patch_size": 8, "lg_patch_size": 16, "depth": 1},
    "crossformer.CrossFormer": {"dim": (32, 64, 96, 128), "depth": (1, 1, 1, 1), "global_window_size": (4, 2, 2, 1),
                                "local_window_size": 2, "num_classes": 5},
    "cvt.CvT": {"s1_emb_dim": 8, "s2_emb_dim": 16, "s3_emb_dim": 24, "s3_depth": 1},
    "levit.LeViT": {"dim": (16, 24, 32), "depth": 1, "heads": (2, 2, 2), "mlp_mult": 2, "image_size": 64},
    "max_vit.MaxViT": {"dim": 8, "depth": (1, 1, 1, 1), "dim_head": 8, "window_size": 2},
    "max_vit_with_registers.MaxViT": {"dim": 8, "depth": (1, 1, 1, 1), "dim_head": 8, "window_size": 2},
    "mobile_vit.MobileViT": {"dims": [16, 24, 32], "channels": [8, 8, 16, 16, 16, 24, 24, 32, 32, 48, 64],
                             "image_size": (64, 64)},
    "nest.NesT": {"heads": 2, "num_hierarchies": 2, "block_repeats": (1, 1), "patch_size": 4},
    "pit.PiT": {"depth": (1, 1), "patch_size": 8, "image_size": 64},
    "regionvit.RegionViT": {"dim": (8, 16, 24, 32), "depth": (1, 1, 1, 1), "window_size": 2, "num_classes": 5},
    "scalable_vit.ScalableViT": {"dim": 8, "depth": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "reduction_factor": (4, 2,
    1, 1),
                                 "window_size": (8, 4, None, None)},
    "sep_vit.SepViT": {"dim": 8, "depth": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window_size": 2, "dim_head": 8},
    "t2t.T2TViT": {"dim": 24, "image_size": 32, "depth": 1, "heads": 2, "mlp_dim": 32},
    "twins_svt.TwinsSVT": {"s1_emb_dim": 8, "s2_emb_dim": 16, "s3_emb_dim": 24, "s4_emb_dim": 32, "s1_depth": 1,
                           "s2_depth": 1, "s3_depth": 1, "s4_depth": 1, "s1_patch_size": 2, "s1_local_patch_size": 2,
                           "s2_patch_size": 2, "s2_local_patch_size": 2, "s3_patch_size": 2, "s3_local_patch_size": 2,
                           "s4_patch_size": 2, "s4_local_patch_size": 1},
    "look_vit.LookViT": {"depth": 1, "heads": 2, "dim_head": 12, "patch_size": 8, "highres_patch_size": 4},
    "jet_vit.JetViT": {"dim_head": 12},
    "looped_vit.LoopedViT": {"image_size": 32, "patch_size": 8, "heads": 2},
    "vit_5.ViT": {"dim": 32, "dim_head": 16},
}  # fmt: skip


def vit_pytorch() -> Networks:
    """The vision transformer of each module, and those that are trained around one."""
    import vit_pytorch as library

    found: Networks = {}
    for module in pkgutil.iter_modules(library.__path__):
        file = importlib.import_module(f"vit_pytorch.{module.name}")
        for name, kind in vars(file).items():
            own = inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == file.__name__
            if (
                own
                and not name.startswith(("TransformerClassifier", "Adapter", "AST"))
                and (f"{module.name}.{name}" in _VIT_OPTIONS or "num_classes" in inspect.signature(kind).parameters)
            ):
                found[f"{module.name}.{name}"] = lambda kind=kind, key=f"{module.name}.{name}": _vit(kind, key)

    def around(name: str) -> Made:
        encoder = library.ViT(
            **{
                key: _VIT[key]
                for key in ("image_size", "patch_size", "num_classes", "dim", "depth", "heads", "mlp_dim")
            }
        )
        match name:
            case "mae":
                return library.MAE(encoder=encoder, decoder_dim=24, decoder_depth=1, decoder_heads=2), image(32)
            case "simmim":
                return importlib.import_module("vit_pytorch.simmim").SimMIM(encoder=encoder), image(32)
            case "dino":
                kind = importlib.import_module("vit_pytorch.dino").Dino
                return kind(
                    encoder,
                    image_size=32,
                    hidden_layer="to_latent",
                    projection_hidden_size=16,
                    projection_layers=2,
                    num_classes_K=32,
                ), image(32, batch=2)
        kind = importlib.import_module("vit_pytorch.extractor").Extractor
        return kind(encoder, return_embeddings_only=True), image(32)

    def distilled() -> Made:
        file = importlib.import_module("vit_pytorch.distill")
        keys = ("image_size", "patch_size", "num_classes", "dim", "depth", "heads", "mlp_dim")
        student = file.DistillableViT(**{key: _VIT[key] for key in keys})
        teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        return file.DistillWrapper(teacher=teacher, student=student), (image(32, batch=2), torch.tensor([0, 3]))

    return (
        found
        | {name: lambda name=name: around(name) for name in ("mae", "simmim", "dino", "extractor")}
        | {"distill": distilled}
    )


def _vit(kind: Any, key: str) -> Made:
    model = built(kind, _VIT, **_VIT_OPTIONS.get(key, {}))
    asked = inspect.signature(kind).parameters
    size = _VIT_OPTIONS.get(key, {}).get("image_size", 32)
    size = size[0] if isinstance(size, tuple) else size
    if "input_shape" in asked:
        return model, torch.rand(1, 3, 8, 8, 8)
    if "frames" in asked or "num_frames" in asked:
        return model, torch.rand(1, 3, 4, size, size)
    if "seq_len" in asked:
        return model, torch.rand(1, 3, 32)
    if key.startswith("na_vit"):
        pair = [torch.rand(3, 4, 32, 32), torch.rand(3, 2, 16, 16)] if "3d" in key else [image(32)[0], image(16)[0]]
        return model, ([pair] if key == "na_vit.NaViT" else pair,)
    return model, image(size)


# --- segmentation_models_pytorch -------------------------------------------------------------------------------------


def segmentation_models_pytorch() -> Networks:
    """All architectures with a small encoder, and U-Nets with encoders of other kinds."""
    import segmentation_models_pytorch as library

    def make(kind: str, encoder: str, **options: Any) -> Made:
        return library.create_model(kind, encoder, encoder_weights=None, classes=3, **options), image(
            224 if kind == "dpt" else 128
        )

    encoders = ("vgg11_bn", "densenet121", "efficientnet-b0", "mobilenet_v2", "xception", "inceptionv4", "dpn68",
                "se_resnet50", "resnext50_32x4d", "timm-regnetx_002", "mit_b0",
                "mobileone_s0", "tu-convnext_atto", "timm-resnest14d", "timm-skresnet18", "timm-gernet_s")  # fmt: skip
    kinds = list(library.MODEL_ARCHITECTURES_MAPPING)
    special = {"dpt": {}}
    networks = {
        kind: lambda kind=kind: make(kind, "tu-vit_tiny_patch16_224" if kind == "dpt" else "resnet18",
                                     **special.get(kind, {}))
        for kind in kinds
    }  # fmt: skip
    networks |= {f"unet with {name}": lambda name=name: make("unet", name) for name in encoders}
    networks["unet with attention and a classifier"] = lambda: make(
        "unet", "resnet18", decoder_attention_type="scse", aux_params={"classes": 4}
    )
    return networks


# --- others ----------------------------------------------------------------------------------------------------------


def open_clip() -> Networks:
    """Small models, one for each kind of tower, from their configurations."""
    import open_clip as library

    text = {"context_length": 12, "vocab_size": 50, "width": 24, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}

    def clip(vision: Any = vision, text: Any = text, kind: Any = library.CLIP, **options: Any) -> Made:
        return kind(16, vision, text, **options), (image(32), tokens(12))

    def coca() -> Made:
        decoder = {"context_length": 12, "vocab_size": 50, "width": 24, "heads": 2, "layers": 2, "mlp_ratio": 2}
        options = {
            **vision,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 6,
            "output_tokens": True,
        }
        model = library.CoCa(24, decoder, {**text, "embed_cls": True, "output_tokens": True}, options)
        return model, (image(32), tokens(12))

    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    timm = {"image_size": 32, "timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_pool": "avg",
            "timm_proj": "linear"}  # fmt: skip
    return {
        "CLIP": clip, "CLIP with a ResNet": lambda: clip(resnet), "CLIP with timm": lambda: clip(timm),
        "CLIP with attentive pooling": lambda: clip({**vision, "attentional_pool": True, "attn_pooler_heads": 2}),
        "CLIP with patch dropout and layer scales": lambda: clip(
            {**vision, "patch_dropout": 0.5, "ls_init_value": 1e-4, "no_ln_pre": True, "pool_type": "avg"}),
        "CLIP with a text tower of its own": lambda: clip(kind=library.CustomTextCLIP),
        "CLIP for SigLIP": lambda: clip(vision, {**text, "no_causal_mask": True, "pool_type": "last",
            "proj_bias": True},
                                        library.CustomTextCLIP, init_logit_bias=-10.0),
        "CLIP with quick GELU": lambda: clip(quick_gelu=True),
        "CoCa": coca,
    }  # fmt: skip


def kornia() -> Networks:
    """Its networks for features, edges, segmentation and super-resolution."""
    from kornia import feature
    from kornia.feature.lightglue import LightGlue
    from kornia.models import dexined, rrdbnet, tiny_vit, vit, vit_mobile

    patches = torch.rand(2, 1, 32, 32)

    def loftr() -> Made:
        return feature.LoFTR(pretrained=None), {"data": {"image0": image(64, 1), "image1": image(64, 1)}}

    def lightglue() -> Made:
        model = LightGlue(features=None, input_dim=32, descriptor_dim=32, n_layers=2, num_heads=2, weights=None,
                          add_scale_ori=False, depth_confidence=-1, width_confidence=-1)  # fmt: skip
        side = {"keypoints": 30 * torch.rand(1, 9, 2), "descriptors": torch.rand(1, 9, 32),
                "image_size": torch.tensor([[32.0, 32.0]])}  # fmt: skip
        return model, {"data": {"image0": side, "image1": dict(side)}}

    found: Networks = {
        "HardNet": lambda: (feature.HardNet(pretrained=False), patches),
            "HardNet8": lambda: (feature.HardNet8(pretrained=False), patches),
        "HyNet": lambda: (feature.HyNet(pretrained=False), patches),
            "SOSNet": lambda: (feature.SOSNet(pretrained=False), patches),
        "TFeat": lambda: (feature.TFeat(pretrained=False), patches),
            "OriNet": lambda: (feature.OriNet(pretrained=False), patches),
        "KeyNet": lambda: (feature.KeyNet(pretrained=False), image(32, 1)), "LoFTR": loftr, "LightGlue": lightglue,
        "DeFMO": lambda: (feature.DeFMO(pretrained=False), torch.rand(1, 6, 64, 64)),
        "DISK": lambda: (feature.DISK(), image(64)), "DeDoDe": lambda: (feature.DeDoDe(), image(56)),
        "SOLD2": lambda: (feature.SOLD2_detector(pretrained=False), image(64, 1)),
        "XFeat": lambda: (feature.xfeat.XFeatModel(), image(64)),
        "LAFAffNet": lambda: (feature.LAFAffNetShapeEstimator(pretrained=False), (torch.rand(1, 3, 2, 3), image(32,
            1))),
        "DexiNed": lambda: (dexined.DexiNed(pretrained=False), image(64)),
        "RRDBNet": lambda: (rrdbnet.RRDBNet(3, 3, 2, 8, 2, 4), image(32)),
        "TinyViT": lambda: (tiny_vit.TinyViT(32, num_classes=5, embed_dims=[16, 16, 32, 32], depths=[1, 1, 1, 1],
                                             num_heads=[1, 1, 2, 2], window_sizes=[4, 4, 4, 4]), image(32)),
        "VisionTransformer": lambda: (vit.VisionTransformer(32, 8, 3, 24, 2, 2), image(32)),
        "MobileViT": lambda: (vit_mobile.MobileViT("xxs"), image(256)),
    }  # fmt: skip
    return found


def lightly() -> Networks:
    """Self-supervised methods: a backbone with the heads of each, as in the library's examples."""
    from lightly.models import modules
    from lightly.models.modules import heads

    class Method(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
                                          nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip
            self.parts = nn.ModuleList(parts)

        def forward(self, x: Tensor) -> list[Tensor]:
            results = [self.backbone(x)]
            for part in self.parts:
                results.append(part(results[-1]))
            return results

    x = image(16, batch=2)
    return {
        "SimCLR": lambda: (Method(heads.SimCLRProjectionHead(16, 12, 9)), x),
        "MoCo": lambda: (Method(heads.MoCoProjectionHead(16, 12, 9)), x),
        "BYOL": lambda: (Method(heads.BYOLProjectionHead(16, 12, 9), heads.BYOLPredictionHead(9, 12, 9)), x),
        "Barlow Twins": lambda: (Method(heads.BarlowTwinsProjectionHead(16, 12, 9)), x),
        "SimSiam": lambda: (Method(heads.SimSiamProjectionHead(16, 12, 9), heads.SimSiamPredictionHead(9, 5, 9)), x),
        "SwaV": lambda: (Method(heads.SwaVProjectionHead(16, 12, 9), heads.SwaVPrototypes(9, 7)), x),
        "DINO": lambda: (Method(heads.DINOProjectionHead(16, 12, 9, 7)), x),
        "DINO without a fixed last layer": lambda: (
            Method(heads.DINOProjectionHead(16, 12, 9, 7, norm_last_layer=False)),
            x,
        ),
        "SMoG": lambda: (Method(heads.SMoGProjectionHead(16, 12, 9), heads.SMoGPredictionHead(9, 12, 9)), x),
        "VICReg": lambda: (Method(heads.VicRegLLocalProjectionHead(16, 12, 9)), x),
        "NNCLR": lambda: (Method(heads.NNCLRProjectionHead(16, 12, 9), heads.NNCLRPredictionHead(9, 12, 9)), x),
        "TiCo": lambda: (Method(heads.TiCoProjectionHead(16, 12, 9)), x),
        "MMCR": lambda: (Method(heads.MMCRProjectionHead(16, 12, 9)), x),
        "a memory bank": lambda: (Method(heads.SimCLRProjectionHead(16, 12, 9), _Nearest(modules)), x),
        "ResNet of CIFAR": lambda: (_lightly_resnet(), image(32, batch=2)),
    }


class _Nearest(nn.Module):
    def __init__(self, modules: Any) -> None:
        super().__init__()
        self.bank = modules.NNMemoryBankModule(size=(11, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.bank(x, update=False)


def _lightly_resnet() -> nn.Module:
    from lightly.models import ResNetGenerator

    network: nn.Module = ResNetGenerator("resnet-9", width=0.125)
    return network


def geffnet() -> Networks:
    """Its networks with at most seven million parameters."""
    import geffnet as library
    from geffnet import gen_efficientnet, mobilenetv3

    names = [name for file in (gen_efficientnet, mobilenetv3) for name in file.__all__ if name.islower()]
    small = [name for name in names if not any(part in name for part in ("b3", "b4", "b5", "b6", "b7", "b8", "_l2",
                                                                        "xl", "_l", "tf_"))]  # fmt: skip
    return {name: lambda name=name: (library.create_model(name, num_classes=5), image(64)) for name in small}


def pretrainedmodels() -> Networks:
    """One network of each of its families."""
    import pretrainedmodels as library

    names = ("alexnet", "vgg11_bn", "bninception", "cafferesnet101", "densenet121", "dpn68", "fbresnet152",
             "inceptionresnetv2", "inceptionv3", "inceptionv4", "nasnetamobile", "pnasnet5large", "polynet",
             "resnet18", "resnext101_32x4d", "se_resnet50", "se_resnext50_32x4d", "senet154", "squeezenet1_1",
             "xception")  # fmt: skip

    def make(name: str) -> Made:
        model = library.__dict__[name](num_classes=1000, pretrained=None)
        sides = {"inceptionv3": 299, "nasnetamobile": 224, "alexnet": 224, "pnasnet5large": 331, "polynet": 331,
                 "bninception": 224, "cafferesnet101": 224, "dpn68": 224, "fbresnet152": 224, "vgg11_bn": 224,
                 "resnet18": 224, "densenet121": 224, "senet154": 224, "se_resnet50": 224, "se_resnext50_32x4d": 224,
                 "resnext101_32x4d": 224, "inceptionresnetv2": 299, "inceptionv4": 299, "xception": 299}  # fmt: skip
        return model, image(sides.get(name, 224))

    return {name: lambda name=name: make(name) for name in names}


def torchxrayvision() -> Networks:
    """Its classifier and autoencoder, without weights."""
    import torchxrayvision as library

    return {
        "DenseNet": lambda: (library.models.DenseNet(num_classes=5, block_config=(2, 2), num_init_features=8,
                                                     growth_rate=4), image(64, 1)),
        "DenseNet121": lambda: (library.models.DenseNet(num_classes=18), image(224, 1)),
    }  # fmt: skip
