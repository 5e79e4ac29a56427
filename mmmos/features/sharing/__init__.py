"""Features without audio: a feature set is exported on one machine and imported on another."""
