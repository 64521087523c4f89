"""Tests of the measures: laws, planted answers, and agreement with independent implementations."""
