"""What train_fold.py does itself; tests/test_pipeline.py runs it whole."""

import pytest

from configs.errors import UserError
from configs.schema import Config
from train_fold import chosen


def test_experiments_are_chosen_by_name_in_the_order_that_was_asked() -> None:
    several = [Config(name=name) for name in ("a", "b", "c")]
    assert [cfg.name for cfg in chosen(several, "c,a")] == ["c", "a"]
    with pytest.raises(UserError, match="--only: no experiment d in the file; there are 3: a, b, c"):
        chosen(several, "a,d")
