"""A stand-in for the Tsallis mixed model of the thesis, whose text could not be read: not the thesis's model."""
