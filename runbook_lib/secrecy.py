"""What must not be told: credentials, and what stands in people's rows.

A report is read by more people than the database is. Two things find their way into one by the words of others.
PostgreSQL quotes the very row it could not take ("Key (email)=(...) already exists", "Failing row contains (...)",
"COPY users, line 3: ..."), and the statement it stumbled over; and whoever wrote a function, an option or a setting may
have written a password into it. So the words of PostgreSQL and of its programs pass through `said_by_postgresql` where
they enter the library, and definitions through `without_credentials` where they are shown.

Of PostgreSQL's messages everything is kept that it is known to say of the database's own objects: the message itself,
table, column, constraint, index, function, and the number of the line. Whatever else stands in quotes is hidden, and so
is any message that the database's own functions wrote (RAISE): nobody can know what they put into it. Better that a
word is missing than that a row is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

HIDDEN = "***"
"""What stands in the place of whatever is not told."""

_NAME = (
    r"[\w-]*(?:pass(?:word|wd|phrase)|pwd|secret|token|credential|signature"
    r"|(?:access|api|private|client)[_-]?key)[\w-]*"
)
SECRET_NAME = re.compile(rf"(?i){_NAME}")
"""The names of things that are secret."""
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.|'')*'"
_BARE = r"(?:[^\s\"'&,;)}\]]|[,;)}\]](?=[^\s.,;:\"')}\]]))+"
"""A value without quotes: to the next blank, or to a sign that ends a list of values rather than stands in one."""

_OUR_WORDS = r"(?:expected|is missing|was not in|differs in|other content)\b"
"""How what a finding says begins; before it stands the name of a table, a column or a setting."""
_EXPRESSION = r"\w+\.\w|\$\d|\w+\("
"""How a column, a parameter or a call of SQL begins, which is what stands there in a definition."""

_CREDENTIALS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+(?=@)"), rf"\1:{HIDDEN}"),
    # password = '...', "secret_key": "..."
    (re.compile(rf"(?i)(?<![\w-])({_NAME}[\"']?\s*(?:=|:(?!:))\s*)({_QUOTED})"), rf"\g<1>{HIDDEN}"),
    # password=..., X-Amz-Signature=...; PGPASSWORD: ..., but not: column password_hash: is missing
    (re.compile(rf"(?i)(?<![\w-])({_NAME}[\"']?(?:=|\s*:(?!:)\s*(?!{_OUR_WORDS})))({_BARE})"), rf"\g<1>{HIDDEN}"),
    # aws_secret_access_key = ..., but not: WHERE users.token = sessions.token
    (re.compile(rf"(?i)(?<![\w-])({_NAME}[\"']?\s*=\s*)(?!{_EXPRESSION})({_BARE})"), rf"\g<1>{HIDDEN}"),
    # ... PASSWORD '...', OPTIONS (password '...'), SET app.secret TO '...'
    (re.compile(rf"(?i)(?<![\w-])({_NAME}[\"']?\s+(?:to\s+)?)E?'(?:[^']|'')*'"), rf"\g<1>{HIDDEN}"),
    # Authorization: Bearer ...
    (re.compile(r"(?i)(authorization\s*:\s*\w+\s+|\bbearer\s+)[A-Za-z0-9+/=._~-]{8,}"), rf"\g<1>{HIDDEN}"),
    # AWS access key ids, PostgreSQL's password verifiers, JSON web tokens, private keys
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    (re.compile(r"SCRAM-SHA-256\$[^\s'\"]+|\bmd5[0-9a-f]{32}\b"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), HIDDEN),
)


def without_credentials(text: str) -> str:
    """Return a text with everything that looks like a secret hidden."""
    for shape, instead in _CREDENTIALS:
        text = shape.sub(instead, text)
    return text


_ANOTHER_BEGINS = r"(?:\S*/)?(?:pg_\w+|psql|initdb|postgres|createdb)[: ]|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
"""How a line begins that goes on with nothing: a program names itself, a server's log the time."""
_SEVERITY = r"(?P<severity>ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|DEBUG)\d?:  (?P<text>.*)"
_MESSAGE = re.compile(rf"(?P<before>(?:(?:{_ANOTHER_BEGINS}).*?)?\s*)\b{_SEVERITY}")
_MESSAGE_ANYWHERE = re.compile(rf"(?P<before>.*?)\b{_SEVERITY}")
_FIELD = re.compile(
    r"(?P<before>(?:E |pg_\w+: (?:detail: )?|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\])?\s*)"
    r"(?P<name>DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LOCATION|LINE \d+|Command was): (?P<text>.*)"
)
"""What a server, or one of the programs, says beside a message."""
_OF_THE_DATABASES_OWN_CODE = re.compile(r"\bat (?:RAISE|ASSERT)\b|PL/(?:Python|Perl|Tcl)")
_SPOKEN_BY_CODE = frozenset({"WARNING", "NOTICE", "INFO", "DEBUG"})
"""Without a context nobody can see who wrote them."""
_NOUNS = (
    "at table relation column constraint index sequence view type domain schema function procedure operator extension"
    " role user database tablespace publication subscription trigger policy rule language collation encoding file"
    " directory library parameter server wrapper partition method option socket statistics object slot catalog"
)
_QUOTED_WORD = re.compile(
    rf"(?P<known>\b(?:{'|'.join(_NOUNS.split())}|host name|locale name:"
    r'|at or near(?= "(?:[A-Z_]{2,20}|\W{1,2})")) )'
    r'"[^"]*"|".*"|"[^"]*$'
)
"""A quoted word after a noun that names an object; or all from another quotation mark to the last one.

A value may hold quotation marks itself, and PostgreSQL does not double them. Of what a syntax error is near to, a word
in capitals is one of SQL's own.
"""
_DETAILS = (
    (re.compile(r"(Key \(.*?\))=\(.*\)( (?:already exists|is duplicated|is not present|is still referenced)\b.*)"),
     rf"\1=({HIDDEN})\2"),
    (re.compile(r"(Key \(.*?\))=\(.*\) conflicts with .*"), rf"\1=({HIDDEN}) conflicts with an existing key"),
    (re.compile(r"((?:Partition key of the f|F)ailing row contains) .*"), rf"\1 ({HIDDEN})"),
)  # fmt: skip
_CONTEXTS = (
    re.compile(r"(COPY .+?, line \d+(?:, column \S+?)?)(?=: |$)"),
    re.compile(r"(JSON data, line \d+)"),
    re.compile(r"(PL/pgSQL function \S*?\(.*?\) line \d+ at [\w ]+)"),
    re.compile(r'(SQL function "[^"]*" statement \d+)'),
    re.compile(r"(SQL statement) "),
)
_ANYWHERE = (
    (re.compile(r"\b(Key \(.*?\))=\(.*?\)(?= (?:already|is|conflicts)\b|$)"), rf"\1=({HIDDEN})"),
    (re.compile(r"((?:Partition key of the f|\bF)ailing row contains) \(.*"), rf"\1 ({HIDDEN})"),
    (re.compile(r'(invalid input (?:syntax for type|value for enum) [^:"]+): ".*"'), rf'\1: "{HIDDEN}"'),
    (re.compile(r'(COPY \S+, line \d+(?:, column \S+?)?): ".*"?'), r"\1"),
)
_OUR_OWN_WORDS = ". To fix this: "


@dataclass
class _Message:
    """A message of a server with what it says beside it."""

    before: str
    """What a program or a log put before it."""
    severity: str
    """Empty where the driver left it out."""
    lines: list[str]
    """The message itself."""
    fields: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """What stands before its name, the name, and the lines of each field."""

    def told(self) -> Iterator[str]:
        """Yield what may be told of it, a line each."""
        context = "\n".join("\n".join(lines) for _, name, lines in self.fields if name == "CONTEXT")
        ours = self.severity in _SPOKEN_BY_CODE or _OF_THE_DATABASES_OWN_CODE.search(context)
        text = f"{HIDDEN} (the database's own code may have written it)" if ours else _primary(" ".join(self.lines))
        yield f"{self.before}{self.severity}:  {text}" if self.severity else f"{self.before}{text}"
        for before, name, lines in self.fields:
            if not (ours and name in ("DETAIL", "HINT")):
                yield from (f"{before}{name}: {told}" for told in _field(name, lines))


def said_by_postgresql(text: str, *, by_the_driver: bool = False) -> str:
    """Return what PostgreSQL or one of its programs said, without the values of rows.

    :param text: the whole of it: where a value goes over several lines, only what follows tells where it ends
    :param by_the_driver: whether it is one message as the driver gives it, without its severity
    """
    message = _Message("", "", []) if by_the_driver else None
    told: list[str] = []

    def done() -> None:
        if message is not None:
            told.extend(message.told())

    for line in text.splitlines():
        if begun := _MESSAGE.match(line):
            done()
            message = _Message(begun["before"], begun["severity"], [begun["text"]])
        elif message is None:
            told.append(line)
        elif beside := _FIELD.match(line):
            message.fields.append((beside["before"], beside["name"], [beside["text"]]))
        elif re.match(_ANOTHER_BEGINS, line):
            done()
            message = None
            told.append(line)
        elif message.fields:
            message.fields[-1][2].append(line)
        else:
            message.lines.append(line)
    done()
    return "\n".join(told)


def without_row_values(text: str) -> str:
    """Return any text with the values of rows hidden in the lines that are words of PostgreSQL.

    Unlike `said_by_postgresql` it takes each line by itself: the others may be anybody's.
    """
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    if said := _MESSAGE_ANYWHERE.match(line):
        words, ours, remedy = said["text"].partition(_OUR_OWN_WORDS)
        line = f"{said['before']}{said['severity']}:  {_primary(words)}{ours}{remedy}"
    elif beside := _FIELD.match(line):
        told = next(_field(beside["name"], [beside["text"]]), HIDDEN)
        line = f"{beside['before']}{beside['name']}: {told}"
    for shape, instead in _ANYWHERE:
        line = shape.sub(instead, line)
    return line


def _primary(text: str) -> str:
    return _QUOTED_WORD.sub(lambda word: word[0] if word["known"] else f'"{HIDDEN}"', text)


def _field(name: str, lines: list[str]) -> Iterator[str]:
    """Yield what may be told of a field; nothing where it is not known to be harmless."""
    text = " ".join(lines).strip()
    if name == "DETAIL":
        yield from (f" {shape.sub(instead, text)}" for shape, instead in _DETAILS if shape.match(text))
    elif name == "HINT":
        yield f" {_primary(text)}"
    elif name == "CONTEXT":
        yield from (
            f" {found[1]}" for line in lines for shape in _CONTEXTS if (found := shape.match(line.strip())) is not None
        )
    elif name == "Command was":
        words = re.match(r"[A-Z]+(?: [A-Z]+)*\b", text)
        yield f"{words[0] if words else ''} {HIDDEN}".lstrip()
