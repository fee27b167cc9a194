"""What to do, as data: the models of a profile, and how one is read."""

from loadgen.profile.agents import Agents, Configuration, Member
from loadgen.profile.loads import Load
from loadgen.profile.profile import Profile
from loadgen.profile.reading import load, shipped
from loadgen.profile.settings import Telemetry
from loadgen.profile.target import TargetSpec
from loadgen.profile.work import Work

__all__ = ["Agents", "Configuration", "Load", "Member", "Profile", "TargetSpec", "Telemetry", "Work", "load", "shipped"]
