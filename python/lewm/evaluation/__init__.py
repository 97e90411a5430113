"""Evaluation by planning: success rates, their intervals, and what they are compared with."""

from __future__ import annotations

from lewm.evaluation.agents import Agent, CloningAgent, PlanningAgent, RandomAgent
from lewm.evaluation.protocols import Evaluation, SeedResult, default_budget, evaluate, evaluate_agents
from lewm.evaluation.report import format_table, write_report
from lewm.evaluation.runner import Outcome, run_tasks
from lewm.evaluation.statistics import Rate, wilson_interval
from lewm.evaluation.tasks import PAPER_EPISODES, PROTOCOLS, Tasks, draw_tasks

__all__ = [
    "PAPER_EPISODES",
    "PROTOCOLS",
    "Agent",
    "CloningAgent",
    "Evaluation",
    "Outcome",
    "PlanningAgent",
    "RandomAgent",
    "Rate",
    "SeedResult",
    "Tasks",
    "default_budget",
    "draw_tasks",
    "evaluate",
    "evaluate_agents",
    "format_table",
    "run_tasks",
    "wilson_interval",
    "write_report",
]
