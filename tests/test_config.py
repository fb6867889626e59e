"""The settings: their defaults, the presets, TOML, and how a wrong value is refused."""

import dataclasses
import math

import pytest

from minigpt.config import Config, ModelConfig, SamplingConfig, TrainingConfig
from minigpt.errors import ConfigError, MinigptError
from minigpt.presets import PRESETS


def test_the_lecture_preset_has_the_lectures_settings() -> None:
    config = Config.from_preset("lecture")
    training, model = config.training, config.model
    assert (training.batch_size, training.max_iters, training.eval_interval) == (16, 5000, 100)
    assert (training.learning_rate, training.train_fraction) == (1e-3, 0.9)
    assert (model.block_size, model.n_embd, model.n_head, model.n_layer, model.dropout) == (32, 64, 4, 4, 0.0)
    assert config == Config()


def test_the_large_preset_has_the_settings_of_the_lectures_last_model() -> None:
    config = Config.from_preset("lecture-large")
    training, model = config.training, config.model
    assert (training.batch_size, training.max_iters, training.eval_interval) == (64, 5000, 500)
    assert (model.block_size, model.n_embd, model.n_head, model.n_layer, model.dropout) == (256, 384, 6, 6, 0.2)
    assert training.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_embd", 0, "n_embd must be a whole number at least 1, not 0"),
        ("n_layer", -1, "n_layer must be a whole number at least 1 and at most 512, not -1"),
        ("block_size", 8.0, "block_size must be a whole number at least 1, not 8.0"),
        ("n_head", True, "n_head must be a whole number at least 1 and at most 256, not True"),
        ("max_minutes", 0, "max_minutes must be a number above 0 and at most 1000000.0, not 0"),
        ("max_minutes", -2.0, "max_minutes must be a number above 0 and at most 1000000.0, not -2.0"),
        ("min_learning_rate", 0.1, "min_learning_rate must be at most learning_rate, but 0.1 is above 0.001: lower it"),
        ("muon_learning_rate", 1e39, "muon_learning_rate must be a number above 0 and at most 1e+30, not 1e+39"),
        ("n_head", 3, "n_embd must be divisible by n_head, but 64 is not divisible by 3: change one of them"),
        ("dropout", 1, "dropout must be a number at least 0 and below 1, not 1"),
        ("dropout", -0.1, "dropout must be a number at least 0 and below 1, not -0.1"),
        ("batch_size", 10**400, "batch_size must be a whole number at least 1, not a number of more than 64 bits"),
        ("weight_decay", 10**400, "weight_decay must be a number at least 0, not a number of more than 64 bits"),
        ("dropout", math.nan, "dropout must be a number at least 0 and below 1, not nan"),
        ("architecture", "gtp", "architecture must be one of gpt, modern, bigram, not 'gtp'"),
        ("batch_size", "16", "batch_size must be a whole number at least 1, not '16'"),
        ("learning_rate", 0, "learning_rate must be a number above 0 and at most 1e+30, not 0"),
        ("learning_rate", math.inf, "learning_rate must be a number above 0 and at most 1e+30, not inf"),
        ("train_fraction", 1, "train_fraction must be a number above 0 and below 1, not 1"),
        ("max_iters", 0, "max_iters must be a whole number at least 1, not 0"),
        ("seed", -1, "seed must be a whole number at least 0 and at most 9223372036854775807, not -1"),
        ("device", "tpu", "device must be one of auto, cpu, cuda, mps, not 'tpu'"),
        ("batchsize", 3, "there is no setting 'batchsize'; did you mean 'batch_size'?"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().override(**{name: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 2.0),
        ("max_new_tokens", 0),
        ("temperature", math.nan),
    ],
)
def test_a_sampling_setting_out_of_its_bounds_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be .*, not {value}$"):
        SamplingConfig(**{name: value})


def test_the_nanogpt_preset_has_nanogpts_settings() -> None:
    config = Config.from_preset("nanogpt-cpu")
    model, training = config.model, config.training
    assert (training.batch_size, model.block_size, model.n_layer, model.n_head, model.n_embd) == (12, 64, 4, 4, 128)
    assert (training.max_iters, training.learning_rate, training.min_learning_rate) == (2000, 1e-3, 1e-4)
    assert (training.warmup_iters, training.beta2, training.weight_decay, training.grad_clip) == (100, 0.99, 0.1, 1.0)
    assert (training.schedule, training.optimizer, model.activation, model.tied_head) == (
        *("cosine", "adamw"),
        *("gelu_exact", True),
    )


@pytest.mark.parametrize("minutes", [2, 10, 60])
def test_a_record_preset_has_a_time_budget_that_max_iters_replaces(minutes: int) -> None:
    config = Config.from_preset(f"cpu-{minutes}min")
    assert config.training.max_minutes == minutes
    assert config.override(max_iters=70).training.max_minutes is None
    assert config.override(max_iters=70, max_minutes=3).training.max_minutes == 3
    assert config.override(seed=3).training.max_minutes == minutes
    with pytest.raises(ConfigError, match="max_minutes needs the whole schedule"):
        config.override(schedule_start=10)


@pytest.mark.parametrize("preset", PRESETS)
def test_toml_reads_back_to_an_equal_configuration(preset: str) -> None:
    config = Config.from_preset(preset).override(seed=3, vocab_size=11)
    assert Config.from_toml(config.to_toml()) == config


def test_a_toml_setting_may_stand_in_its_table_or_in_none() -> None:
    flat = Config.from_toml('preset = "bigram"\nbatch_size = 4\nblock_size = 5')
    tables = Config.from_toml('preset = "bigram"\n[training]\nbatch_size = 4\n[model]\nblock_size = 5')
    assert flat == tables == Config.from_preset("bigram").override(batch_size=4, block_size=5)
    assert Config.from_toml("n_layer = 2", preset="lecture-large").model.n_embd == 384


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("batch_size =", "not TOML"),
        ("batch_size = " + "9" * 5000, "not TOML"),
        ("batch_size = " + "[" * 5000, "not TOML"),
        ("batch_siz = 4", "'batch_siz'; did you mean 'batch_size'"),
        ("[model]\nbatch_size = 4", r"no setting 'batch_size' under \[model\]"),
        ("[trainig]\nbatch_size = 4", r"no table \[trainig\]; did you mean 'training'"),
        ("model = 3", "'model' must be a table"),
        ('preset = "lectur"', "no preset 'lectur'.*did you mean 'lecture'"),
        ("preset = 3", "no preset '3'"),
        ("[model]\nn_embd = '64'", "n_embd must be a whole number"),
        ("n_embd = [64]", "n_embd must be a whole number"),
        ("[training]\nlearning_rate = nan", "learning_rate must be a number"),
    ],
)
def test_wrong_toml_is_refused(toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_toml(toml)


def test_a_complete_toml_must_have_every_setting_that_has_a_default() -> None:
    lines = Config().to_toml().splitlines()
    assert Config.from_toml("\n".join(lines), complete=True) == Config()
    shorter = "\n".join(line for line in lines if not line.startswith("beta2"))
    assert Config.from_toml(shorter) == Config()
    with pytest.raises(ConfigError, match="the setting 'beta2' is missing"):
        Config.from_toml(shorter, complete=True)


def test_a_toml_setting_in_no_table_wins_over_one_in_its_table() -> None:
    assert Config.from_toml("n_layer = 2\n[model]\nn_layer = 3").model.n_layer == 2


def test_configurations_are_frozen_and_every_setting_has_a_help_text() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.n_embd = 3  # type: ignore[misc]
    for part in (ModelConfig, TrainingConfig, SamplingConfig):
        assert all(f.metadata["help"] for f in dataclasses.fields(part))
    names = ModelConfig.names() + TrainingConfig.names()
    assert len(names) == len(set(names))  # so that a flat namespace of flags is unambiguous


def test_a_config_error_is_a_minigpt_error() -> None:
    assert issubclass(ConfigError, MinigptError)
