"""Whether MuJoCo can draw here: shared by the tests of its environments."""

from __future__ import annotations

import numpy as np
import pytest

from lewm.envs.reacher import ReacherEnv
from lewm.errors import Error


def _drawing_works() -> bool:
    try:
        ReacherEnv(image_size=64).render_state(np.zeros(4))
    except Error:
        return False
    return True


needs_opengl = pytest.mark.skipif(not _drawing_works(), reason="neither EGL nor OSMesa works here")
