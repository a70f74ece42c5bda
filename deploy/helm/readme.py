#!/usr/bin/env python3
"""Writes the table of values into the chart's README, from the comments of values.yaml.

    readme.py VALUES README     prints the README with the table between its two markers

A value is a key with a comment `# -- text` right above it.
"""

import re
import sys

BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
KEY = re.compile(r"( *)([A-Za-z_]+):(?: (.*))?$")


def values(text):
    """The documented keys, with default and meaning."""
    above, meaning, lines = [], None, text.splitlines()
    for at, line in enumerate(lines):
        comment = line.strip()
        if comment.startswith("# -- "):
            meaning = comment[5:]
            continue
        found = KEY.match(line)
        if not found:
            continue
        indent, name, default = len(found[1]) // 2, found[2], found[3]
        above = above[:indent] + [name]
        if meaning is not None:
            yield ".".join(above), default or below(lines[at + 1 :], indent), meaning
            meaning = None


def below(lines, indent):
    """A default of several lines, on one."""
    block = []
    for line in lines:
        if not line.strip() or len(line) - len(line.lstrip()) <= indent * 2:
            break
        block.append(line.strip())
    return " ".join(block)


def table(text):
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for name, default, meaning in values(text):
        cells = [f"`{name}`", f"`{default}`", meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = table(file.read())
    with open(sys.argv[2], encoding="utf-8") as file:
        readme = file.read()
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    sys.stdout.write(f"{before}{BEGIN}\n{rows}\n{END}{after}")


main()
