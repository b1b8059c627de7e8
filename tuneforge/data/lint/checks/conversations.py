"""Conversations and prompts that can be read and are probably not meant so."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import Check, Code
from tuneforge.data.lint.findings import Finding
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity


class Conversations(Check):
    """Finds turns and prompts without a word, and calls of tools that the row does not offer.

    What makes a row unreadable, such as an unknown role, turns in a wrong order or a result without a call, is found
    when the row is read: BAD_CONVERSATION, an error. Here: EMPTY_TURN and EMPTY_PROMPT, warnings: nothing but white
    space stands there; writing from nothing may be what is to be learned. UNKNOWN_TOOL, a warning: the row lists tools,
    and one that is not among them is called. All exact.
    """

    name: ClassVar[str] = "conversations"
    codes: ClassVar[Mapping[str, Code]] = {
        "EMPTY_TURN": Code(severity=Severity.WARNING, cure="Leave the turn out or fill it in."),
        "EMPTY_PROMPT": Code(
            severity=Severity.WARNING, cure="Fill it in, unless writing from nothing is to be learned."
        ),
        "UNKNOWN_TOOL": Code(severity=Severity.WARNING, cure="Add it to the row's tools, or take the call out."),
    }

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Looks at the prompt and the turns."""
        turns = subject.turns
        if not turns:
            if subject.target and not subject.has_prompt:
                return (self.found("EMPTY_PROMPT", "The prompt is empty.", subject, field=subject.texts[0][0]),)
            return ()
        found = []
        for place, turn in enumerate(turns):
            content, role = turn["content"], turn["role"]
            if role != "assistant" and (not content or content.isspace()):
                message = f"The {role}'s turn is empty."
                found.append(self.found("EMPTY_TURN", message, subject, field=f"messages[{place}].content"))
            if "tool_calls" in turn:
                found += self._unknown_tools(subject, place, turn["tool_calls"])
        return found

    def _unknown_tools(self, subject: Subject, place: int, calls: list[dict[str, Mapping[str, str]]]) -> list[Finding]:
        tools = (subject.parsed.content or {}).get("tools")
        offered = {tool["function"]["name"] for tool in tools or ()}
        unknown = sorted({call["function"]["name"] for call in calls} - offered) if tools else []
        return [
            self.found(
                "UNKNOWN_TOOL",
                f"It calls {name[:60]!r}, which is not among the row's tools.",
                subject,
                field=f"messages[{place}].tool_calls",
            )
            for name in unknown
        ]
