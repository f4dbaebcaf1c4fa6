"""Ways to compute the 1x1 convolutions of a network, and the networks that they are measured on."""
