"""Agents, which answer the user. Authors of agents import everything they need from here.

from lastcall.agents import Turn

class Parrot:
    describe = "parrot"

    async def reply(self, turn: Turn):
        yield turn.messages[-1].text
"""

from .agent import (
    Agent,
    AgentFailed,
    ContextItem,
    CutOff,
    FunctionCall,
    FunctionOutput,
    JsonModel,
    Memory,
    Message,
    ModelUnavailable,
    Piece,
    RequestUnsupported,
    Role,
    Tool,
    ToolArguments,
    ToolCall,
    Transcript,
    Turn,
    Usage,
)

__all__ = [
    "Agent",
    "AgentFailed",
    "ContextItem",
    "CutOff",
    "FunctionCall",
    "FunctionOutput",
    "JsonModel",
    "Memory",
    "Message",
    "ModelUnavailable",
    "Piece",
    "RequestUnsupported",
    "Role",
    "Tool",
    "ToolArguments",
    "ToolCall",
    "Transcript",
    "Turn",
    "Usage",
]
