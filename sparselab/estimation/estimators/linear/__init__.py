"""Linear regressors without intercept as scikit-learn estimators: what they share, greedy ones, and the Lasso in features."""
