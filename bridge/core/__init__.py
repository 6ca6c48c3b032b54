"""The rules: synchronous, pure code. Time and chance are arguments; nothing here touches a socket, a clock or a log."""
