"""Input of the estimators, checked as scikit-learn checks it."""
