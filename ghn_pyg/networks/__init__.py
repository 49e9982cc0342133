"""Networks by name: torchvision's, timm's, those of Transformers, and your own."""
