"""The ways to blend, by name. Only the standard library: `ensemble.py --help` lists them at once."""

METHODS = {
    "single": "the best model alone",
    "arithmetic": "mean of the probabilities",
    "geometric": "geometric mean of the probabilities",
    "rank": "mean of each clip's class ranks (Borda count)",
    "temperature": "mean after scaling every model by its own temperature",
    "greedy": "greedy selection with replacement, bagged",
    "weights": "continuous weights found by Optuna on MAP@3",
    "log_linear": "weighted sum of log-probabilities, plus an offset per class",
    "stack": "logistic regression on all log-probabilities",
}
AUTO = "auto"  # the simplest of METHODS within one standard error of the best nested score
DECIDE = ("verified", "all")  # which rows fit and judge a blend
