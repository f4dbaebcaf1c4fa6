"""One module per family. Planning imports them all, so none imports torch, timm or transformers at module level."""
