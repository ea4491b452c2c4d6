"""One loop that resumes to the same bit; recipes; jobs."""

from .distributed import choose_device as choose_device
from .evaluate import Metrics as Metrics
from .evaluate import evaluate as evaluate
from .history import EpochRecord as EpochRecord
from .history import History as History
from .jobs import Job as Job
from .jobs import build as build
from .loop import fit as fit
from .recipes import RECIPES as RECIPES
from .recipes import Recipe as Recipe
from .recipes import recipe as recipe
from .run import run_job as run_job
from .signals import Interrupted as Interrupted
