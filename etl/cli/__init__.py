"""The command line: reads arguments, files and the environment; prints; maps errors to codes."""
