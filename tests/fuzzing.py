"""How long the fuzz tests search: few examples, always the same; or FUZZ_EXAMPLES=N new ones (`make fuzz`)."""

import os

from hypothesis import HealthCheck, settings

CI_EXAMPLES = 60
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 0)

# tmp_path is one folder for all examples of a test: each writes its files anew. A shared machine has slow moments, so
# an example has no deadline; what must not hang is bounded by the tests themselves.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("ci", **_common, derandomize=True, max_examples=CI_EXAMPLES, database=None)
settings.register_profile("long", **_common, max_examples=max(EXAMPLES, 1), print_blob=True)

fuzz = settings.get_profile("long" if EXAMPLES else "ci")  # @fuzz above @given(...)
