from smallpress import _native
from smallpress.cli.doctor import examine


def test_doctor_says_when_the_core_has_no_kernels_for_the_processor(monkeypatch):
    monkeypatch.setattr(_native, "best_kernels", lambda: "scalar")
    (core,) = [finding for finding in examine() if finding.subject == "native core"]
    assert core.found.startswith("plain C++") and core.remedy == ""
