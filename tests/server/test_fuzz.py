"""Thousands of requests that schemathesis makes up; `python -m tests.server.fuzz` says what they check."""

import pytest

from tests.server.fuzz import fuzz


def is_sound(report):
    assert report["exit_code"] == 0, report["printed"]
    assert report["failures"] == report["errors"] == [], report["printed"]
    assert report["alive"]
    answered = report["answered"]
    assert {path for path, status in answered if status.startswith("2")} == {
        *("/health", "/ready", "/metrics", "/openapi.json"),
        *("/v1/generate", "/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{model:path}"),
        *("/v1/policies", "/v1/policies/{policy}/{version}", "/v1/policies/{policy}/{version}/accept"),
    }
    assert not [key for key in answered if key[1].startswith("5") and key != ("/ready", "503")]
    return report["test_cases"]["generated"]


def test_whatever_the_schema_allows_and_what_it_does_not(tmp_path):
    assert is_sound(fuzz(tmp_path, examples=200)) >= 2000


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_same_of_vllm(tmp_path):
    assert is_sound(fuzz(tmp_path, examples=20, vllm=True)) >= 500
