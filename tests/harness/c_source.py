"""C source, read as text: comments apart, code apart, functions found."""

import re

COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*', re.DOTALL)
STEP = re.compile(r"/\* (Step [0-9]+: [^.]*\.)")


def without_comments(source):
    """The source with each comment gone; lines stay lines, strings stay as they are."""

    def replace(match):
        text = match.group(0)
        return "\n" * text.count("\n") if text.startswith(("/*", "//")) else text

    return COMMENT.sub(replace, source)


def code_lines(source):
    """The lines that hold code, each with its blanks made one."""
    lines = (" ".join(line.split()) for line in without_comments(source).splitlines())
    return [line for line in lines if line]


def steps(source):
    """The step headings, up to the first full stop, in their order."""
    return [" ".join(text.split()) for text in STEP.findall(source)]


def function_lines(source, name):
    """How many lines a function takes, from its name to its closing brace; 0 if it is not there."""
    lines = source.splitlines()
    for first, line in enumerate(lines):
        if re.match(rf"^[a-z].*\b{name}\(", line) and not line.rstrip().endswith(";"):
            for last in range(first, len(lines)):
                if lines[last] == "}":
                    return last - first + 1
    return 0
