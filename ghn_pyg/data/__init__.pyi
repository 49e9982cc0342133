from .images import Images, ImagesError, ImageSet, load_images

__all__ = ["ImageSet", "Images", "ImagesError", "load_images"]
