"""A recipe: handwritten digits. Check it with `python -m tuneforge.recipes examples/recipes/mnist.py`."""

from tuneforge.recipes import (
    Parameter,
    Recipe,
    TrainingArguments,
    TrainingDataset,
    TrainingFramework,
    TrainingResources,
    TrainingTask,
)


class MNISTConfig(TrainingArguments):
    """What a user may set."""

    batch_size: int = Parameter(64, ge=1, description="Images in a step.")
    test_batch_size: int = Parameter(1000, ge=1, description="Images in a step of the test.")
    epochs: int = Parameter(1, ge=1, le=1000, description="Passes over the data.")
    lr: float = Parameter(1.0, gt=0, description="Learning rate at the beginning.")
    no_cuda: bool = Parameter(False, description="Stay on the CPU though there is an accelerator.")
    seed: int = Parameter(1, ge=0, description="Of weights and order.")
    log_interval: int = Parameter(10, ge=1, description="Steps between two lines of the log.")
    save_model: bool = Parameter(False, description="Leave the weights as a result.")
    gamma: float = Parameter(0.7, gt=0, le=1, description="What the learning rate is multiplied by after each pass.")


class MNIST(Recipe):
    """A small convolutional network on the digits that its image brings along."""

    name = "MNIST"
    inference_name = "MNIST"
    description = "Recognises handwritten digits. It brings its own data."
    project_url = "https://example.com/recipes/mnist"
    image = "registry.example.com/recipes/mnist:1.0.0"
    command = ["/bin/bash", "-c", "python mnist_training_script.py"]  # noqa: RUF012 - each recipe gets a copy
    framework = TrainingFramework.PYTORCH
    task = TrainingTask.CLASSIFICATION
    training_arguments = MNISTConfig()
    dataset_info = TrainingDataset(description="None is expected.", dataset_required=False)
    resources = TrainingResources(requests={"cpu": 4, "memory": "1Gi"}, limits={"cpu": 8, "memory": "2Gi"})
    accelerator_count = 0
    promotion_path = "molecules/mnist/mnist_test"
