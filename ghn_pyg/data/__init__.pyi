from .augmentation import shift_and_mirror
from .imagenet_archives import unpack_imagenet
from .images import FileImages, Images, ImagesError, ImageSet, TensorImages
from .load import load_images

__all__ = [
    "FileImages", "ImageSet", "Images", "ImagesError", "TensorImages", "load_images", "shift_and_mirror",
    "unpack_imagenet",
]  # fmt: skip
