"""A plugin for nbval with several processes: the kernels of each have runs and stores of their own."""

import os


def pytest_configure(config):
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker:
        os.environ["KAF_HOME"] = os.path.join(os.environ["KAF_HOME"], worker)
