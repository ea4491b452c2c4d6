import os
import signal

# pytest-xdist already fills the cores with one process each; threads of several processes that wait
# for each other on the same cores slow each other down without bound.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts this in the background makes it, and so every process that a test starts,
# deaf to Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
