"""Parts of adapts that import torch: planning imports the modules beside this folder, and none in it."""
