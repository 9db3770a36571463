"""Decides which trials run, which stop and when the budget ends; the journal."""
