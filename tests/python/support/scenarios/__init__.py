"""Test scenarios for every AWS test double. Test modules call them."""
