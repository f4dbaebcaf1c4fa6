"""Problems, one module for each kind of draw."""
