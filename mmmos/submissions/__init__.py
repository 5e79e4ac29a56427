"""Submissions: challenge formats, a writer that writes nothing invalid, a checker, leaderboards and reports."""
