"""What can be wrong with the files of a model or an adapter, beside bytes that changed (`manifest.IntegrityError`)."""


class InvalidModel(ValueError):
    """Files that are no model or adapter that can be loaded."""

    def __init__(self, message: str, cure: str) -> None:
        """Takes what is wrong, with the file or value, and what to do about it: one sentence each."""
        super().__init__(f"{message} {cure}")
        self.message = message
        self.cure = cure
