"""Attachments: programs bound to their hooks."""
