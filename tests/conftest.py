import os

# pytest-xdist already fills the cores with one process each; threads of several processes that wait
# for each other on the same cores made single tests take a hundred times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
