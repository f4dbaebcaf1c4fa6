"""Parts of metrics that import torch or Pillow: planning imports the modules beside this folder, and none in it."""
