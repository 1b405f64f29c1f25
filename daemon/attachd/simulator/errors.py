"""What a rule raises when it refuses a call. Only the code and the sentence: `wire` alone knows HTTP statuses."""


class ApiError(Exception):
    """An error answer: `code` as an SDK reports it (`ThrottlingException`), and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
