"""The science of wmsweep: tasks, stimuli, models, training, recordings and analyses.

Depends on torch, numpy, pydantic and xarray; knows nothing of Ray, MLflow or Optuna.
"""

__version__ = "0.1.0"
