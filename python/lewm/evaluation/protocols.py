"""Success rates of a world model under the paper's and the strict protocol, with the random policy beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import lewm
from lewm.data.episode_file import EpisodeFile
from lewm.envs import GoalEnv, environment_class
from lewm.evaluation.agents import Agent, PlanningAgent, RandomAgent
from lewm.evaluation.runner import Outcome, run_tasks
from lewm.evaluation.statistics import Rate
from lewm.evaluation.tasks import PAPER_EPISODES, PROTOCOLS, Tasks, draw_tasks

__all__ = ["Evaluation", "SeedResult", "default_budget", "evaluate", "evaluate_agents"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SeedResult:
    """One seed: the tasks that were drawn and what each agent made of them."""

    seed: int
    tasks: Tasks
    outcomes: dict[str, Outcome]
    """By agent: "model" and "random"."""
    seconds: dict[str, float]
    """Wall time, by agent."""

    def rate(self, agent: str, protocol: str) -> Rate:
        """Success rate of an agent under a protocol."""
        chosen = getattr(self.tasks, protocol)
        return Rate(int(self.outcomes[agent].success[chosen].sum()), int(chosen.sum()))


@dataclass(frozen=True)
class Evaluation:
    """All seeds of an evaluation and how it was made."""

    settings: dict[str, Any]
    seeds: list[SeedResult] = field(default_factory=list)

    @property
    def agents(self) -> list[str]:
        """Names of what was evaluated."""
        return list(self.seeds[0].outcomes)

    def rate(self, agent: str, protocol: str) -> Rate:
        """Success rate over all seeds together."""
        rates = [result.rate(agent, protocol) for result in self.seeds]
        return Rate(sum(rate.successes for rate in rates), sum(rate.trials for rate in rates))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: settings, and per protocol and agent the rate over all seeds and each seed's."""
        results: dict[str, Any] = {}
        for protocol in PROTOCOLS:
            results[protocol] = {}
            for agent in self.agents:
                by_seed = [result.rate(agent, protocol) for result in self.seeds]
                values = np.array([rate.value for rate in by_seed])
                results[protocol][agent] = {
                    **self.rate(agent, protocol).as_dict(),
                    "seed_mean": float(values.mean()),
                    "seed_std": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "by_seed": {
                        str(r.seed): rate.as_dict() for r, rate in zip(self.seeds, by_seed, strict=True)
                    },
                }
        seconds = {agent: sum(result.seconds[agent] for result in self.seeds) for agent in self.agents}
        return {"settings": self.settings, "results": results, "seconds": seconds}


def default_budget(goal_offset: int) -> int:
    """The published budgets: 50 steps for goals 25 steps away, 150 for 100."""
    return max(50, 3 * goal_offset // 2)


def evaluate(
    model: Any,
    data: str | Path,
    *,
    env: str | None = None,
    episodes: int = 200,
    goal_offset: int = 25,
    budget: int | None = None,
    seeds: Sequence[int] = (0,),
    replan_every: int | None = None,
    context: int = 1,
    precision: str = "auto",
    threads: int | None = None,
    film: int = 0,
    progress: Progress | None = None,
    **planner: Any,
) -> Evaluation:
    """Plans from images to images in an environment and counts how often the goal is reached.

    Both protocols of the same run: "paper" is 50 tasks drawn from the data; "strict" is ``episodes`` tasks
    that are not solved at the start. See `lewm.evaluation.tasks.draw_tasks`.

    Args:
        model: what `lewm.load` takes, or returned.
        data: an episode file that starts and goals are drawn from.
        env: id or short name; by default the one that the file names.
        episodes: of the strict protocol.
        goal_offset: recorded steps between start and goal.
        budget: environment steps that an episode may take; 50, or 150 at goal_offset 100, by default.
        seeds: each draws tasks and plans anew.
        replan_every: blocks executed of a plan; all by default.
        context: frames shown to the model.
        precision, threads: as for `lewm.load`, if ``model`` is a path.
        film: so many strict tasks of the first seed keep all their frames.
        progress: called with (what runs, done, total): episodes of a replan, or steps of an agent's episodes.
        planner: options of `lewm.Planner`, such as ``samples``, ``iterations``, ``horizon`` and ``method``.

    Raises:
        ValueError: an option is out of range, the file names no environment, or has too few starts.
        lewm.Error: the model does not fit the environment, or one of the files is not what it should be.
    """
    if isinstance(model, (str, Path)):
        model = lewm.load(model, precision=precision, threads=threads)
    file = EpisodeFile(data)
    kind = environment_class(env or _named_environment(file))
    environment = kind(image_size=int(model.config.image_size))
    _require_fit(model, environment)
    first = lewm.Planner(
        model, seed=seeds[0] if seeds else 0, **planner
    )  # refuses bad options before any work
    settings = {
        "planner": {"method": first.method, **first.options},
        "replan_every": first.options["horizon"] if replan_every is None else replan_every,
        "context": context,
        "precision": model.precision,
    }

    def agents(seed: int) -> dict[str, Agent]:
        search = lewm.Planner(model, seed=seed, **planner)
        return {
            "model": PlanningAgent(
                model,
                search,
                replan_every=replan_every,
                context=context,
                progress=_plan_progress(progress, seed),
            ),
            "random": RandomAgent(environment.action_space.low, environment.action_space.high),
        }

    try:
        return evaluate_agents(
            agents,
            environment,
            file,
            episodes=episodes,
            goal_offset=goal_offset,
            budget=budget,
            seeds=seeds,
            film=film,
            settings=settings,
            progress=progress,
        )
    finally:
        environment.close()
        file.close()


def evaluate_agents(
    agents: Callable[[int], dict[str, Agent]],
    env: GoalEnv,
    file: EpisodeFile,
    *,
    episodes: int = 200,
    paper_episodes: int = PAPER_EPISODES,
    goal_offset: int = 25,
    budget: int | None = None,
    seeds: Sequence[int] = (0,),
    film: int = 0,
    settings: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """`evaluate` for any agents: ``agents(seed)`` makes them, by name."""
    budget = default_budget(goal_offset) if budget is None else budget
    for name, value in (("episodes", episodes), ("goal_offset", goal_offset), ("budget", budget)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not seeds:
        raise ValueError("seeds: expected at least one")
    evaluation = Evaluation(
        {
            "env": env.env_id,
            "image_size": env.image_size,
            "data": str(file.path),
            "episodes": episodes,
            "paper_episodes": paper_episodes,
            "goal_offset": goal_offset,
            "budget": budget,
            "seeds": list(seeds),
            **(settings or {}),
        }
    )
    for seed in seeds:
        tasks = draw_tasks(
            file, env, goal_offset=goal_offset, episodes=episodes, paper_episodes=paper_episodes, seed=seed
        )
        filmed = np.flatnonzero(tasks.strict)[:film].tolist() if seed == seeds[0] else []
        outcomes, seconds = {}, {}
        batch = env.make_batch(len(tasks), env.image_size)
        try:
            for name, agent in agents(seed).items():
                started = time.perf_counter()
                outcomes[name] = run_tasks(
                    agent,
                    env,
                    batch,
                    tasks,
                    budget=budget,
                    seed=seed,
                    film=filmed if name == "model" else [],
                    progress=_labelled(progress, f"{name}, seed {seed}"),
                )
                seconds[name] = time.perf_counter() - started
        finally:
            batch.close()
        evaluation.seeds.append(SeedResult(seed, tasks, outcomes, seconds))
    return evaluation


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(label, done, total)


def _plan_progress(progress: Progress | None, seed: int) -> Callable[[int, int, int], None] | None:
    if progress is None:
        return None
    return lambda replan, done, total: progress(f"seed {seed}, plan {replan + 1}", done, total)


def _named_environment(file: EpisodeFile) -> str:
    name = file.attributes.get("env")
    if not isinstance(name, str):
        raise ValueError(f"env: {file.path} does not name its environment, say which one it is")
    return name


def _require_fit(model: Any, env: GoalEnv) -> None:
    if model.config.action_dim != env.action_dim:
        raise lewm.Error(
            f"{env.env_id} has {env.action_dim} action dimensions, the model has {model.config.action_dim}"
        )
