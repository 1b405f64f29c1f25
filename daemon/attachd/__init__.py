"""attachd attaches custom bots to Amazon Connect chats."""
