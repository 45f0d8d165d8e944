# Setup for Colab, Binder and your own machine. Where kaf is installed, this only looks around.
def setup(repository="ADDRESS", branch="BRANCH"):
    import importlib.util
    import os
    import shutil
    import subprocess
    import sys
    from pathlib import Path

    found = importlib.util.find_spec("kaf")
    if found is None or found.origin is None:  # or just a folder of that name
        folder, draft = Path("kaf-book").absolute(), Path("kaf-book.part").absolute()
        address = os.environ.get("KAF_REPOSITORY", repository)
        clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", branch, address, draft]
        try:
            import torch  # kept as it is: pip is told its version

            if not folder.exists():  # it gets its name when it is whole
                shutil.rmtree(draft, ignore_errors=True)
                # without a prompt, which nobody would see here
                subprocess.run(clone, check=True, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"})
                draft.rename(folder)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError("kaf is not in this kernel: start the notebook with `make lab`, or choose the Python in "
                               ".venv as its kernel; in Colab put your repository's address into this cell") from error
        (folder / "torch.txt").write_text(f"torch=={torch.__version__}\n")
        pip = [sys.executable, "-m", "pip", "install", "--constraint", folder / "torch.txt", "--editable", folder]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"kaf does not install beside torch {torch.__version__}:\n{done.stdout}\n{done.stderr}")
        sys.path.insert(0, str(folder))  # a running kernel does not see what was just installed

    from kaf.machine import describe_machine
    print(describe_machine())


setup()
