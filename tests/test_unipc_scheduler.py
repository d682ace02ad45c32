# SPDX-License-Identifier: Apache-2.0
"""The archetype of UniPC: its native source against diffusers' class, and when a bake takes it by itself."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from bake_helpers import WAN, bake, release

from fvport.audit import findings
from fvport.scaffold import library, render

STEPS = (1, 2, 7, 20)
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
END: dict[str, Any] = {"final_sigmas_type": "sigma_min"}
CONFIGS: list[dict[str, Any]] = [
    {**FLOW, "flow_shift": 5.0},
    {**FLOW, "flow_shift": 3.0, "solver_order": 3},
    {**FLOW, "solver_order": 1, "disable_corrector": [0, 1]},
    {**FLOW, **END, "solver_type": "bh1", "solver_order": 3},
    {**FLOW, "use_karras_sigmas": True},
    {**FLOW, "use_exponential_sigmas": True, "sigma_max": 0.9},
    {**FLOW, "use_dynamic_shifting": True},
    {**FLOW, "use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.02},
    {**FLOW, "flow_shift": 2.0, "shift_terminal": 0.1},
    {},
    {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "solver_type": "midpoint"},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5},
    {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    {"trained_betas": [0.001 * n + 0.001 for n in range(50)], "num_train_timesteps": 50, "steps_offset": 1}
    | {"timestep_spacing": "leading"},
    {**END, "solver_type": "bh1", "predict_x0": False},
    {**END, "predict_x0": False, "prediction_type": "sample", "solver_order": 3, "lower_order_final": False},
    {**END, "predict_x0": False, "prediction_type": "v_prediction"},
    {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 20.0},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True, "solver_order": 3},
]


@cache
def own() -> Any:
    """The native class, without FastVideo: its base class asks for three methods and nothing else."""
    template = render.environment().get_template("unipc_scheduler/native.py.jinja")
    source = template.render(p=SimpleNamespace(model="Tiny"), c=SimpleNamespace(native_class="Own"))
    source = source.replace("from fastvideo.models.schedulers.base import BaseScheduler", "class BaseScheduler: pass")
    space = ModuleType("own_scheduler").__dict__
    exec(compile(source, "own_scheduler", "exec"), space)  # noqa: S102 - what the template made
    return space["Own"]


def official(config: dict[str, Any]) -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**config)


def ran(scheduler: Any, steps: int, first: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Tables, noised start, every step and the index of a run with fixed outputs."""
    given = torch.Generator().manual_seed(3)
    scheduler.set_timesteps(steps, **({"mu": 0.7} if scheduler.config.use_dynamic_shifting else {}))
    found = [scheduler.timesteps, scheduler.sigmas]
    sample, noise = (torch.randn(2, 3, 4, 5, generator=given).to(dtype) for _ in range(2))
    if first:
        scheduler.set_begin_index(first)
    sample = scheduler.add_noise(sample, noise, scheduler.timesteps[[first, first]])
    for timestep in scheduler.timesteps[first:]:
        found.append(sample)
        output = torch.randn(2, 3, 4, 5, generator=given).to(dtype)
        sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
    return [*found, sample, torch.tensor(scheduler.step_index)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


# --- the source ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_step_is_the_official_one_to_the_bit(config: dict[str, Any]) -> None:
    """Tables, noised input, states and index of whole runs, from the middle, and in bf16; all of them finite."""
    one = config.get("shift_terminal")  # one step has no end that it could be stretched to, officially either
    runs = [(steps, 0, torch.float32) for steps in STEPS if not (one and steps == 1)]
    for steps, first, dtype in [*runs, (7, 3, torch.float32), (7, 0, torch.bfloat16)]:
        a, b = (ran(scheduler, steps, first, dtype) for scheduler in (official(config), own()(**config)))
        assert all(bool(value.isfinite().all()) for value in a)
        assert equal(a, b), f"{steps} steps from {first} in {dtype}"


@pytest.mark.parametrize("steps", [7, 20])  # of two steps the last one forgets what the corrector did
@pytest.mark.parametrize(
    "change",
    [
        {"disable_corrector": list(range(20))},
        {"flow_shift": 5.01},
        {"solver_order": 1},
        {"use_flow_sigmas": False},
        {"prediction_type": "epsilon"},
        END,
    ],
    ids=str,
)
def test_another_setting_is_another_run(change: dict[str, Any], steps: int) -> None:
    """A corrector that is off, another shift, order, schedule or prediction does not equal the official run."""
    assert not equal(ran(official(CONFIGS[0]), steps), ran(own()(**{**CONFIGS[0], **change}), steps))


def test_a_flow_can_be_given_its_levels() -> None:
    """`sigmas` are levels before the shift, as FastVideo's stage hands them on; another schedule refuses them."""
    a, b = official(CONFIGS[0]), own()(**CONFIGS[0])
    a.set_timesteps(sigmas=torch.tensor([1.0, 0.7, 0.2]).numpy())
    b.set_timesteps(sigmas=torch.tensor([1.0, 0.7, 0.2]).numpy())
    assert equal([a.timesteps, a.sigmas], [b.timesteps, b.sigmas])
    b.set_timesteps(sigmas=[1.0, 0.7, 0.2])
    assert torch.allclose(a.sigmas, b.sigmas)
    with pytest.raises(ValueError, match="only be given where use_flow_sigmas"):
        own()().set_timesteps(sigmas=[1.0, 0.5])


def test_the_pipeline_configs_shift_is_taken_or_refused() -> None:
    """FastVideo's loader sets flow_shift: it counts for a flow, and is refused where it would change nothing."""
    scheduler = own()(**FLOW)
    scheduler.set_shift(5.0)
    assert equal(ran(official(CONFIGS[0]), 7), ran(scheduler, 7))
    for config in ({}, {**FLOW, "use_karras_sigmas": True}, {**FLOW, "use_dynamic_shifting": True}):
        own()(**config).set_shift(1.0)  # what it has
        with pytest.raises(ValueError, match="flow_shift changes nothing"):
            own()(**config).set_shift(3.0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"solver_p": object()}, "solver_p"),
        ({"solver_order": 0}, "solver_order 0"),
        ({"solver_type": "euler"}, "solver_type 'euler'"),
        ({"prediction_type": "x"}, "prediction_type 'x'"),
        ({"beta_schedule": "x"}, "beta_schedule 'x'"),
        ({"timestep_spacing": "x"}, "timestep_spacing 'x'"),
        ({"final_sigmas_type": "x"}, "final_sigmas_type 'x'"),
        ({"time_shift_type": "x"}, "time_shift_type 'x'"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of"),
        ({"shift_terminal": 0.1}, "shift_terminal needs"),
        ({**FLOW, **END, "predict_x0": False}, "needs predict_x0"),
        ({**FLOW, "use_beta_sigmas": True}, "sigma_max under 1"),
        ({"solver_type": "bh1"}, "no finite last step"),
        ({"predict_x0": False}, "no finite last step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "config",
)
def test_what_it_does_not_support_is_refused_at_once(config: dict[str, Any], said: str) -> None:
    """One sentence in the constructor, never another schedule."""
    with pytest.raises(ValueError, match=said):
        own()(**config)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("config", [{"solver_type": "bh1"}, {"predict_x0": False}])
def test_what_is_refused_as_not_finite_is_so_officially(config: dict[str, Any]) -> None:
    """The official class ends such a run in nan."""
    assert not ran(official(config), 7)[-2].isfinite().all()


# --- the choice ------------------------------------------------------------------------------------------------------

OLD = {"_class_name": "UniPCMultistepScheduler", **FLOW, "flow_shift": 5.0}


def baked(tmp_path: Path, config: dict[str, Any], components: str = "auto") -> tuple[str, str, dict[str, str]]:
    """(its line of the plan, native class, files) of a release with this scheduler."""
    parts = {**WAN, "scheduler": ("diffusers", "UniPCMultistepScheduler", config, {})}
    root = bake(tmp_path, official_weights=str(release(tmp_path / "w", components=parts)), components=components)
    made = {str(f.relative_to(root)): f.read_text() for f in root.glob("fastvideo/models/schedulers/*.py")}
    declared = (root / "tests/local_tests/tiny_wan/port.toml").read_text()
    plan = (root / "tests/local_tests/tiny_wan/PLAN.md").read_text()
    line = next((x for x in plan.splitlines() if "scheduler=" in x and "docs/census.md" in x), "")
    return line, declared, made


def test_a_bake_takes_its_own_where_fastvideos_is_known_to_differ(tmp_path: Path) -> None:
    """A release of Wan: mode port, native source, and the reason with its number in the census."""
    line, declared, made = baked(tmp_path, OLD)
    assert (
        "scheduler=port: FastVideo's UniPCMultistepScheduler differs: every flow sigma is another (FV-S01 in docs/"
        in line
    )
    assert "class TinyWanScheduler" in "".join(made.values())
    assert "TinyWanScheduler" in declared


def test_a_person_who_asks_for_fastvideos_class_gets_it(tmp_path: Path) -> None:
    """`components=scheduler=reuse` wins, and the plan says what is known of that class."""
    line, declared, made = baked(tmp_path, OLD, "scheduler=reuse")
    assert "asked for, although FastVideo's UniPCMultistepScheduler differs" in line
    assert not made
    assert "scheduling_unipc_multistep:UniPCMultistepScheduler" in declared


def test_only_what_the_census_measured_as_different_is_ported() -> None:
    """Old files of other schedules are equal, so FastVideo's class stays; keys that it refuses count for each."""
    found = library.get("unipc_scheduler")

    def differs(**config: Any) -> str:
        return found.differs("diffusers:UniPCMultistepScheduler", config)

    assert differs() == differs(prediction_type="epsilon") == differs(use_karras_sigmas=True) == ""
    assert differs(**FLOW, use_karras_sigmas=True).startswith("Karras levels are not made a flow's")
    assert "FV-S01" in differs(**FLOW)
    assert differs(sigma_min=None) == "it refuses keys of the release's config (FV-S02 in docs/census.md)"
    assert "FV-S01" in differs(**FLOW, shift_terminal=None)
    assert "FV-S02" in differs(**FLOW, shift_terminal=None)


def test_every_reason_is_a_finding_of_the_census() -> None:
    """The numbers in the archetypes are those of the audit."""
    known = {finding.id for finding in findings.all_findings()}
    texts = [json.dumps(archetype.data.get("reuse")) for archetype in library.all_archetypes().values()]
    cited = {part[:6] for text in texts for part in text.split('"finding": "')[1:]}
    assert cited
    assert cited <= known
