"""Checks that hold on every double of AWS; test modules call them."""
