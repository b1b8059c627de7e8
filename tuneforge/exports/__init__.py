"""A job's figures in the tools that people watch all their runs with: TensorBoard and MLflow."""
