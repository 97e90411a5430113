"""Success rates of a world model under the paper's and the strict protocol, with the random policy beside them."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import lewm
from lewm.arrays import at_least
from lewm.data.episode_file import EpisodeFile
from lewm.envs import GoalEnv, environment_class
from lewm.evaluation.agents import Agent, CloningAgent, PlanningAgent, RandomAgent
from lewm.evaluation.parts import Parts, join
from lewm.evaluation.runner import Outcome, run_tasks
from lewm.evaluation.statistics import Rate
from lewm.evaluation.tasks import PAPER_EPISODES, PROTOCOLS, Tasks, draw_tasks
from lewm.recorded import RecordedActions

__all__ = ["Evaluation", "SeedResult", "default_budget", "evaluate", "evaluate_agents", "require_fit"]

Progress = Callable[[str, int, int], None]

TASKS_PER_PART = 25
"""Tasks that run in step and are planned in one call; a killed evaluation loses at most so many."""

_AGENTS = ("planner", "gcbc")


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
    context: int | None = None,
    recorded: str | Path | None = None,
    proposals: int | None = None,
    precision: str | None = None,
    threads: int | None = None,
    film: int = 0,
    agent: str = "planner",
    parts: str | Path | None = None,
    progress: Progress | None = None,
    **planner: Any,
) -> Evaluation:
    """Plans from images to images in an environment and counts how often the goal is reached.

    Both protocols of the same run: "paper" is 50 tasks drawn from the data; "strict" is ``episodes`` tasks
    that are not solved at the start. See `lewm.evaluation.tasks.draw_tasks`.

    Args:
        model: what `lewm.load` takes, or returned; with ``agent="gcbc"`` the folder of such a run, or what
            `lewm.training.load_trained` returned.
        data: an episode file that starts and goals are drawn from.
        env: id or short name; by default the one that the file names.
        episodes: of the strict protocol.
        goal_offset: recorded steps between start and goal.
        budget: environment steps that an episode may take; 50, or 150 at goal_offset 100, by default.
        seeds: different ones; each draws tasks and plans anew.
        replan_every: blocks executed of a plan; all by default.
        context: frames shown to the model; 1 by default.
        recorded: episodes, those trained on, from which plans begin: with the cheapest of ``proposals`` (128 by
            default) sequences that followed frames like the present one. See `lewm.RecordedActions`.
        precision, threads: as for `lewm.load`, if ``model`` is a path.
        film: so many strict tasks of the first seed keep all their frames.
        agent: "planner", or "gcbc" for a cloned policy, which takes none of the options of planning.
        parts: folder that keeps what is finished; an interrupted evaluation with the same settings goes on from it.
        progress: called with (what runs, steps done, steps in total).
        planner: options of `lewm.Planner`, such as ``samples``, ``iterations``, ``horizon`` and ``method``. ``device``
            is that of torch's search with ``backend="torch"``, and otherwise where a ``model`` given by its path is
            loaded, as for `lewm.load`.

    Raises:
        ValueError, TypeError: an option is out of range, the file names no environment, or has too few starts.
        lewm.Error: the model does not fit the environment, or one of the files is not what it should be.
    """
    if agent not in _AGENTS:
        raise ValueError(f"agent: expected one of {', '.join(_AGENTS)}, got {agent!r}")
    seeds = _checked_seeds(seeds)
    if agent == "gcbc":
        planning = {"replan_every": replan_every, "context": context, "recorded": recorded, **planner}
        planning |= {"proposals": proposals, "precision": precision, "threads": threads}
        given = [name for name, value in planning.items() if value is not None]
        if given:
            raise ValueError(
                f"{', '.join(given)}: expected none with agent='gcbc', a cloned policy does not plan"
            )
        model = _cloner(model)
    elif isinstance(model, (str, Path)):
        # The core's search runs where the model lies; torch's takes a device of its own.
        searches_elsewhere = planner.get("backend", "core") != "core"
        place = None if searches_elsewhere else planner.pop("device", None)
        model = lewm.load(model, precision=precision or "auto", threads=threads, device=place or "cpu")
    if proposals is not None and recorded is None:
        raise ValueError(f"proposals: expected with recorded only, got {proposals}")
    file = EpisodeFile(data)
    kind = environment_class(env or _named_environment(file))
    environment = kind(image_size=int(model.config.image_size))
    try:
        require_fit(model, environment)
        if agent == "gcbc":
            make_agent, settings, prepare = _cloning(model)
        else:
            make_agent, settings, prepare = _planning(
                model,
                seeds,
                replan_every,
                1 if context is None else context,
                recorded,
                128 if proposals is None else proposals,
                planner,
            )

        def agents(seed: int) -> dict[str, Agent]:
            space = environment.action_space
            return {"model": make_agent(seed), "random": RandomAgent(space.low, space.high)}

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
            parts=None if parts is None else Path(parts),
            identity=None
            if parts is None
            else {
                "model": _weights_digest(model),
                **_file_identity("data", file.path),
                **({} if recorded is None else _file_identity("recorded", Path(recorded))),
            },
            prepare=prepare,
            progress=progress,
        )
    finally:
        environment.close()
        file.close()


def _planning(
    model: Any,
    seeds: Sequence[int],
    replan_every: int | None,
    context: int,
    recorded: str | Path | None,
    proposals: int,
    options: dict[str, Any],
) -> tuple[Callable[[int], Agent], dict[str, Any], Callable[[], object]]:
    """The agent of a seed that plans with the model, its settings, and what takes long and precedes its first plan;
    refuses bad options before any work."""
    first = lewm.Planner(model, seed=seeds[0], **options)
    starts: dict[str, Any] = {"proposals": 0}
    read: Callable[[], RecordedActions] | None = None
    if recorded is not None:
        starts = {"proposals": at_least("proposals", proposals), "recorded": str(recorded)}
        read = functools.cache(lambda: RecordedActions.from_episodes(model, recorded, first.horizon))

    def make(seed: int) -> Agent:
        planner = lewm.Planner(model, seed=seed, **options)
        return PlanningAgent(
            model,
            planner,
            replan_every=replan_every,
            context=context,
            recorded=read,
            proposals=proposals,
        )

    bounds = options.get("bounds")
    settings = {
        "agent": "planner",
        "planner": {
            "method": first.method,
            "backend": options.get("backend", "core"),
            "cost": str(options.get("cost", "final")),
            "bounds": None if bounds is None else [np.asarray(side).tolist() for side in bounds],
            **first.options,
        },
        "replan_every": first.options["horizon"] if replan_every is None else replan_every,
        "context": context,
        **starts,
        "device": first.device,
        "precision": model.precision,
        "encoder_precision": model.encoder_precision,
    }
    return make, settings, read or (lambda: None)


def _cloning(policy: Any) -> tuple[Callable[[int], Agent], dict[str, Any], Callable[[], object]]:
    return lambda seed: CloningAgent(policy), {"agent": "gcbc"}, lambda: None


def _cloner(model: Any) -> Any:
    """The cloned policy in the folder of a run."""
    from lewm.nn.cloner import Cloner
    from lewm.training import load_trained

    policy = load_trained(model) if isinstance(model, (str, Path)) else model
    if not isinstance(policy, Cloner):
        raise lewm.Error(f"{model}: expected a run with objective gcbc, it trained another kind of model")
    return policy


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
    parts: Path | None = None,
    identity: dict[str, Any] | None = None,
    prepare: Callable[[], object] = lambda: None,
    progress: Progress | None = None,
) -> Evaluation:
    """`evaluate` for any agents: ``agents(seed)`` makes them, by name.

    ``identity`` is what decides the outcomes and is not among the settings: ``parts`` of another one are not used.
    ``prepare`` is called before every part that runs, so never when all are kept.
    """
    episodes, goal_offset = at_least("episodes", episodes), at_least("goal_offset", goal_offset)
    film = at_least("film", film, 0)
    budget = default_budget(goal_offset) if budget is None else at_least("budget", budget)
    seeds = _checked_seeds(seeds)
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
    decides = {"version": lewm.__version__, "film": film, **evaluation.settings, **(identity or {})}
    kept = Parts(parts, decides)
    for seed in seeds:
        tasks = draw_tasks(
            file, env, goal_offset=goal_offset, episodes=episodes, paper_episodes=paper_episodes, seed=seed
        )
        filmed = np.flatnonzero(tasks.strict)[:film].tolist() if seed == seeds[0] else []
        outcomes, seconds = {}, {}
        for name, agent in agents(seed).items():
            outcomes[name], seconds[name] = _run_in_parts(
                name,
                agent,
                env,
                tasks,
                kept,
                budget=budget,
                seed=seed,
                film=filmed if name == "model" else [],
                prepare=prepare,
                progress=_labelled(progress, f"{name}, seed {seed}"),
            )
        evaluation.seeds.append(SeedResult(seed, tasks, outcomes, seconds))
    return evaluation


def _run_in_parts(
    name: str,
    agent: Agent,
    env: GoalEnv,
    tasks: Tasks,
    kept: Parts,
    *,
    budget: int,
    seed: int,
    film: Sequence[int],
    prepare: Callable[[], object],
    progress: Callable[[int, int], None] | None,
) -> tuple[Outcome, float]:
    """The outcome of all tasks, and its seconds; parts that are kept are not run again."""
    count = -(-len(tasks) // TASKS_PER_PART)
    outcomes, total = [], 0.0
    for part in range(count):
        first = part * TASKS_PER_PART
        done = kept.load(seed, name, part)
        if done is None:
            prepare()
            kept.begin()  # only now: a refusal, of options or of a file, leaves parts of other settings as they are
            rows = np.arange(first, min(first + TASKS_PER_PART, len(tasks)))
            started = time.perf_counter()
            batch = env.make_batch(len(rows), env.image_size)
            try:
                outcome = run_tasks(
                    agent,
                    env,
                    batch,
                    tasks.take(rows),
                    budget=budget,
                    seed=seed,
                    first=first,
                    film=[row - first for row in film if first <= row < first + TASKS_PER_PART],
                    progress=_shifted(progress, part, count),
                )
            finally:
                batch.close()
            done = outcome, time.perf_counter() - started
            kept.save(seed, name, part, *done)
        outcomes.append(done[0])
        total += done[1]
    return join(outcomes), total


def _shifted(
    progress: Callable[[int, int], None] | None, part: int, count: int
) -> Callable[[int, int], None] | None:
    """Reports the steps of one part as steps of all of them."""
    if progress is None:
        return None
    return lambda done, budget: progress(part * budget + done, count * budget)


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(label, done, total)


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds: expected a sequence of ints, got {seeds!r}")
    checked = [at_least("seeds", seed, 0) for seed in seeds]
    if not checked:
        raise ValueError("seeds: expected at least one")
    if len(set(checked)) < len(checked):  # the same tasks would count as new ones
        raise ValueError(f"seeds: expected each once, got {checked}")
    return checked


def _named_environment(file: EpisodeFile) -> str:
    name = file.attributes.get("env")
    if not isinstance(name, str):
        raise ValueError(f"env: {file.path} does not name its environment, say which one it is")
    return name


def require_fit(model: Any, env: GoalEnv) -> None:
    """Raises lewm.Error if the model has another number of action dimensions than the environment."""
    if model.config.action_dim != env.action_dim:
        raise lewm.Error(
            f"{env.env_id} has {env.action_dim} action dimensions, the model has {model.config.action_dim}"
        )


def _weights_digest(model: Any) -> str:
    """SHA-256 of a model's sizes, scalings and weights: of a `lewm.Model`, or of a trainable module."""
    digest = hashlib.sha256()
    if hasattr(model, "checkpoint"):
        checkpoint = model.checkpoint()
        state, scalings = checkpoint.state, (checkpoint.preprocessing, checkpoint.action_scaling)
    else:
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        scalings = (model.preprocessing, model.action_scaling)
    digest.update(repr((model.config, scalings)).encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).data)
    return digest.hexdigest()


def _file_identity(name: str, path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        f"{name}_path": str(path.resolve()),
        f"{name}_size": status.st_size,
        f"{name}_time": status.st_mtime_ns,
    }
