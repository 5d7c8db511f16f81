"""How the demonstration model is trained: what is saved, and how a run goes on."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors import safe_open

from gateway.demo.evaluation import examine
from gateway.demo.exams import QUICK
from gateway.engine import compat

if TYPE_CHECKING:
    from gateway.demo.group import Group

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a training of two steps, the second in a run of its own."""
    compat.platform()
    import torch

    from gateway.demo.training import Plan, train

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("training")
    assert train(directory, Plan("first", steps=1)).step == 1
    assert train(directory, Plan("first", steps=2)).step == 2
    return directory


def test_a_signal_ends_a_run_after_the_step_at_hand_and_keeps_it(trained: Path) -> None:
    from gateway.demo.checkpoints import Standing
    from gateway.demo.training import Plan, train

    class Cut(Plan):
        """A plan during whose third step SIGTERM comes."""

        def progress(self, standing: Standing) -> float:
            if standing.step == 3:
                signal.raise_signal(signal.SIGTERM)
            return super().progress(standing)

    before = signal.getsignal(signal.SIGTERM)
    assert train(trained, Cut("first", steps=100)).step == 3
    assert train(trained, Plan("first", steps=3)).step == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_may_begin_with_a_model_that_was_trained_before(trained: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from gateway.demo import checkpoints

    begun = checkpoints.begin(tmp_path, 1, 0.0, torch.device("cpu"), trained / "model")
    other = checkpoints.begin(tmp_path, 1, 0.0, torch.device("cpu"))
    checkpoints.export(tmp_path / "again", begun.model)

    same = load_file(trained / "model" / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert same[0].keys() == same[1].keys()
    assert all(same[0][name].equal(same[1][name]) for name in same[0])
    assert begun.standing.step == 0
    assert not all(one.equal(two) for one, two in zip(begun.model.parameters(), other.model.parameters(), strict=True))


def test_a_training_may_begin_where_another_has_ended_with_its_heads(trained: Path, tmp_path: Path) -> None:
    import torch

    from gateway.demo import checkpoints

    begun = checkpoints.begin(tmp_path, 1, 0.0, torch.device("cpu"), trained)

    state = torch.load(trained / checkpoints.STATE, weights_only=True)
    for part, saved in ((begun.model, state["model"]), (begun.heads, state["heads"])):
        assert all(weight.equal(saved[name]) for name, weight in part.state_dict().items())
    assert begun.standing.step == 0


def test_where_some_weights_alone_are_trained_all_others_stay_as_they_are(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from gateway.demo.training import Plan, train

    train(tmp_path, Plan("first", steps=1, first=trained / "model", only="vision_tower"))
    before, after = (load_file(path / "model" / "model.safetensors") for path in (trained, tmp_path))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all("vision_tower" in name for name in changed)


def test_a_name_that_no_weight_has_is_refused(trained: Path, tmp_path: Path) -> None:
    from gateway.demo.training import Plan, train
    from gateway.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="no weight has nose in its name"):
        train(tmp_path, Plan("first", steps=1, first=trained / "model", only="nose"))


def test_what_another_version_saved_is_refused_with_the_way_on(trained: Path, tmp_path: Path) -> None:
    import torch
    from click.testing import CliRunner

    from gateway.demo.training import main

    state = torch.load(trained / "training.pt", weights_only=True)
    torch.save({name: state[name] for name in state if name != "version"}, tmp_path / "training.pt")
    result = CliRunner().invoke(main, [str(tmp_path), "--schedule", "first", "--steps", "1", "--processes", "1"])
    assert result.exit_code == 1
    assert f"--first {tmp_path / 'model'}" in result.output


def test_processes_that_train_together_share_the_lessons_of_a_step(trained: Path, tmp_path: Path) -> None:
    import torch

    from gateway.demo.group import Group, together
    from gateway.demo.training import Plan, Steps, train

    torch.set_num_threads(1)
    together(2, partial(train, tmp_path, Plan("first", steps=2)))
    standing = torch.load(tmp_path / "training.pt", weights_only=True)["standing"]
    assert (standing["step"], standing["examples"]) == (2, 2 * 8)

    seen = [Steps(trained / "model", Group(rank, 2))[("first", 0, 5)][1][0] for rank in range(2)]
    assert [len(batch.tasks) for batch in seen] == [4, 4]
    assert not seen[0].inputs["pixel_values"].equal(seen[1].inputs["pixel_values"])


def test_each_gets_the_mean_of_all_gradients(tmp_path: Path) -> None:
    import torch

    from gateway.demo.group import together

    torch.set_num_threads(1)
    together(2, partial(share, tmp_path))
    for rank in range(2):
        mine, nobodys = torch.load(tmp_path / str(rank), weights_only=True)
        assert mine.tolist() == [[1.0, 1.5]]
        assert nobodys.tolist() == [0.0]


def share(directory: Path, group: Group) -> None:
    """What each process of the test above does: leaves the gradients that it ends with in a file named by its rank."""
    import torch

    mine, nobodys = torch.nn.Parameter(torch.zeros(1, 2)), torch.nn.Parameter(torch.zeros(1))
    mine.grad = torch.tensor([[2.0, 3.0]]) * group.rank
    group.share([mine, nobodys])
    torch.save([mine.grad, nobodys.grad], directory / str(group.rank))


def test_a_piece_and_a_crowd_are_learnt_from(tmp_path: Path) -> None:
    import torch

    from gateway.demo import checkpoints
    from gateway.demo.features import Encoder
    from gateway.demo.lessons.curriculum import PIECES, Course, Split, lessons
    from gateway.demo.training import Log, loss_of

    training = checkpoints.begin(tmp_path, 0, 0.0, torch.device("cpu"))
    encoder = Encoder(tmp_path / checkpoints.SERVED)
    for course in (Course(("crowd",), 2, PIECES, within=(27, 23)), Course(("line",), 2, PIECES, within=(27, 23))):
        taught, log = lessons(course, Split.TRAIN, 0), Log()
        loss_of(training, encoder.encode(taught.lessons, taught.grid, taught.offset), 1.0, log).backward()
        towers = training.model.model.vision_tower.parameters()
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in towers)
        assert log.counts["~glyph"] == 1
        training.optimizer.zero_grad()


def test_the_saved_model_is_bfloat16_below_twenty_megabytes_and_has_no_heads(trained: Path) -> None:
    path = trained / "model" / "model.safetensors"
    assert path.stat().st_size < 20e6
    with safe_open(path, "pt") as weights:
        names = list(weights.keys())
        assert weights.get_tensor(names[0]).dtype.itemsize == 2
    assert not [name for name in names if name.startswith(("heads", "classes"))]


def test_the_saved_model_is_complete_and_answers(trained: Path) -> None:
    from gateway.demo.local import Local

    result = examine(Local(trained / "model"), QUICK[0], 1, quarter=True)
    assert result.score.answers == 1


def test_without_a_requests_own_sampling_the_likeliest_token_is_taken(trained: Path) -> None:
    assert json.loads((trained / "model" / "generation_config.json").read_text())["top_k"] == 1


def test_the_rate_rises_falls_and_ends_low() -> None:
    from gateway.demo.training import RATE, Plan

    rates = [Plan(seconds=1).rate_at(progress) for progress in (0.0, 0.01, 0.02, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == RATE > rates[3] > rates[4] > 0
