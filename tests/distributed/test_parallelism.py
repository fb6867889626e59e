"""DDP around a model."""

import warnings
from collections.abc import Iterator

import pytest
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from minigpt.config import Config
from minigpt.distributed.parallelism import parallelize
from minigpt.distributed.process_group import Processes
from minigpt.model import build


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_ddp_starts_without_a_deprecation_warning() -> None:
    config = Config().override(vocab_size=5, n_embd=4, n_head=1, n_layer=1, implementation="lecture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped = parallelize(build(config.model), config, Processes(0, 2))
    assert isinstance(wrapped, DistributedDataParallel)
    assert not wrapped.broadcast_buffers
