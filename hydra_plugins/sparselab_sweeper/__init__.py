"""The sweeper and the launchers that Hydra finds by this package's place."""
