# SPDX-License-Identifier: Apache-2.0
"""Schedulers, step by step: timesteps, sigmas, and every sample of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fvport.audit.case import Call, Case, normal

NATIVE = "fastvideo.models.schedulers"


def cases() -> list[Case]:
    return [*euler(), *unipc(), *flow_unipc(), *flow_map(), *minimax()]


def inputs(generator: Any) -> dict[str, Any]:
    """A sample and what a model adds to its own answer at each step."""
    return {"sample": normal(generator, 1, 4, 3, 6), "bias": normal(generator, 40, 1, 4, 3, 6)}


def run(steps: int = 6, **settings: Any) -> Call:
    """Set the timesteps, then step to the end with a model that is a smooth function of sample and step."""

    def call(scheduler: Any, given: dict[str, Any]) -> dict[str, Any]:
        import torch

        scheduler.set_timesteps(steps, **settings)
        sample = given["sample"]
        found: dict[str, Any] = {"timesteps": scheduler.timesteps.float(), "sigmas": scheduler.sigmas.float()}
        samples = []
        for index, timestep in enumerate(scheduler.timesteps):
            output = torch.tanh(sample * 0.7) + 0.5 * given["bias"][index]
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
            samples.append(sample)
        return found | {"samples": samples}

    return call


def case(name: str, official: str, file: str, config: dict[str, Any], call: Call, what: str = "", **more: Any) -> Case:
    cls = more.pop("native", official)
    return Case(
        name,
        f"diffusers:{official}",
        f"{NATIVE}.{file}:{cls}",
        "scheduler",
        inputs,
        call,
        more.pop("theirs", call),
        config=config,
        what=what,
        **more,
    )


def euler() -> list[Case]:
    def euler_case(suffix: str, what: str, config: dict[str, Any], call: Call = run()) -> Case:  # noqa: B008
        file = "scheduling_flow_match_euler_discrete"
        return case(f"flow_match_euler{suffix}", "FlowMatchEulerDiscreteScheduler", file, config, call, what)

    return [
        euler_case("", "shift 3 (SD3, Wan)", {"shift": 3.0}),
        euler_case("/steps50", "50 steps, shift 5", {"shift": 5.0}, run(30)),
        euler_case("/dynamic", "use_dynamic_shifting, mu 0.8 (Flux)", {"use_dynamic_shifting": True}, run(mu=0.8)),
        euler_case(
            "/linear",
            "linear dynamic shift",
            {"use_dynamic_shifting": True, "time_shift_type": "linear"},
            run(mu=0.8),
        ),
        euler_case("/terminal", "shift_terminal 0.1 (LTX)", {"shift": 2.0, "shift_terminal": 0.1}),
        euler_case("/karras", "use_karras_sigmas (Cosmos)", {"use_karras_sigmas": True}),
        euler_case("/exponential", "use_exponential_sigmas", {"use_exponential_sigmas": True}),
        euler_case("/beta", "use_beta_sigmas", {"use_beta_sigmas": True}),
        euler_case("/inverted", "invert_sigmas", {"invert_sigmas": True}),
        euler_case("/sigmas", "given sigmas", {"shift": 3.0}, run(4, sigmas=[1.0, 0.8, 0.5, 0.2])),
    ]


def unipc() -> list[Case]:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

    def unipc_case(suffix: str, what: str, config: dict[str, Any], call: Call = run(), **more: Any) -> Case:  # noqa: B008
        return case(
            f"unipc{suffix}", "UniPCMultistepScheduler", "scheduling_unipc_multistep", config, call, what, **more
        )

    old: dict[str, Any] = {"record": {"shift_terminal": None, "sigma_min": None, "sigma_max": None}}
    return [
        unipc_case("", "flow sigmas, shift 3 (Wan), config.json as published", flow, **old),
        unipc_case("/new_config", "config.json as diffusers 0.42 writes it", flow),
        unipc_case("/shift5", "flow_shift 5, 20 steps", {**flow, "flow_shift": 5.0}, run(20), **old),
        unipc_case("/order3", "solver_order 3", {**flow, "solver_order": 3}, run(10), **old),
        unipc_case(
            "/bh1",
            "solver_type bh1, final_sigmas_type sigma_min",
            {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
            **old,
        ),
        unipc_case("/no_corrector", "disable_corrector [0, 1]", {**flow, "disable_corrector": [0, 1]}, **old),
        unipc_case("/epsilon", "the default: epsilon, linear betas", {}, **old),
        unipc_case("/karras", "use_karras_sigmas, epsilon", {"use_karras_sigmas": True}, **old),
        unipc_case(
            "/v_prediction",
            "v_prediction, scaled_linear",
            {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"},
            **old,
        ),
        unipc_case("/dynamic", "use_dynamic_shifting", {**flow, "use_dynamic_shifting": True}, run(mu=0.8), **old),
    ]


def flow_unipc() -> list[Case]:
    """FastVideo's own class for Wan against what the same settings mean in diffusers."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    record = {"_class_name": "FlowUniPCMultistepScheduler", "shift": 3.0}

    def flow_case(suffix: str, what: str, call: Call, **more: Any) -> Case:
        return case(
            f"flow_unipc{suffix}",
            "UniPCMultistepScheduler",
            "scheduling_flow_unipc_multistep",
            {**flow, **more.pop("config", {})},
            call,
            what,
            native="FlowUniPCMultistepScheduler",
            record=record | more.pop("record", {}),
            **more,
        )

    return [
        flow_case("", "Wan's pipeline puts it in the place of the checkpoint's UniPC", run()),
        flow_case("/steps20", "20 steps", run(20)),
        flow_case("/order3", "solver_order 3", run(8), config={"solver_order": 3}),
    ]


def flow_map() -> list[Case]:
    """AnyFlow's Euler scheduler: the native one is called by keyword and has the final zero among its timesteps."""

    def official(scheduler: Any, given: dict[str, Any]) -> dict[str, Any]:
        scheduler.set_timesteps(6)
        times = [*[float(t) for t in scheduler.timesteps][:6], 0.0]
        return steps(scheduler, given, times, lambda out, t, r, x: scheduler.step(out, t, x, r, return_dict=False)[0])

    def native(scheduler: Any, given: dict[str, Any]) -> dict[str, Any]:
        import torch

        def one(time: float) -> Any:
            return torch.tensor([time], dtype=torch.float32)

        scheduler.set_timesteps(num_inference_steps=6)
        times = [float(t) for t in scheduler.timesteps]
        call = scheduler.step
        return steps(
            scheduler, given, times, lambda out, t, r, x: call(out, sample=x, timestep=one(t), r_timestep=one(r))
        )

    def steps(scheduler: Any, given: dict[str, Any], times: list[float], step: Any) -> dict[str, Any]:
        import torch

        sample, samples = given["sample"], []
        for index in range(6):
            output = torch.tanh(sample * 0.7) + 0.5 * given["bias"][index]
            sample = step(output, times[index], times[index + 1], sample)
            samples.append(sample)
        return {"times": torch.tensor(times, dtype=torch.float32), "samples": samples}

    base = case(
        "flow_map_euler",
        "FlowMapEulerDiscreteScheduler",
        "scheduling_flow_map_euler_discrete",
        {"shift": 3.0},
        official,
        "shift 3",
        theirs=native,
        build=lambda cls, record: cls(shift=record["shift"]),
    )
    other = base.variant("shift1", "no shift", config={"shift": 1.0})
    return [replace(found, loader="plain") for found in (base, other)]


def minimax() -> list[Case]:
    def call(scheduler: Any, given: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = run(6)(scheduler, given)
        return found

    return [
        case("minimax_h3_scheduler", "MiniMaxH3Scheduler", "scheduling_minimax_h3", {"shift": 7.0}, call, "shift 7"),
        case("minimax_h3_scheduler/default", "MiniMaxH3Scheduler", "scheduling_minimax_h3", {}, call, "shift 12"),
    ]
