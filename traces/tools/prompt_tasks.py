# SPDX-License-Identifier: Apache-2.0
"""The tasks that prompts are made for: one function each, own code after the source it names.

A task turns a `Case` into a `Draft`: the prompt's text, and the continuation that is forced after
it. The continuation begins with the primed answer ("The special magic word for key is:"), so that
this too is decoded under the schedule in question, not prefilled. Every judged answer is a `Field`:
one word, one token, and 15 other words of its form to be ranked against.

Answers are words, not the 7-digit numbers of RULER: a small model holds every digit as a token of
its own, and one step's logits then cannot rank the answer.
"""

from dataclasses import dataclass, field

from prompt_words import NOISE, Dice

CANDIDATES = 15


@dataclass
class Case:
    """What one prompt is drawn from. `size` counts pieces of haystack; the caller fits it."""

    seed: int
    size: int
    depth: float  # 0: the answer stands at the beginning of the haystack, 1: at its end
    words: list  # one token each
    sentences: list = field(default_factory=lambda: list(NOISE))  # of the haystack, in order


@dataclass
class Field:
    """A judged word of the continuation: `lead` is forced, `gold` is judged against `others`."""

    lead: str
    gold: str
    others: list


@dataclass
class Draft:
    """`haystack` is the part of `text` that the answers are to be found in."""

    text: str
    haystack: str
    question: str
    fields: list
    end: str = ""  # forced after the last field
    facts: object = None  # what tests check the text against


def place(pieces, depth, items):
    """`items` put among `pieces`: the first at `depth`, the others spread over the rest."""
    n, k = len(pieces), len(items)
    at = [round(depth * n)] + [(round(depth * n) + (i * n) // k) % (n + 1) for i in range(1, k)]
    out = list(pieces)
    for position, item in sorted(zip(at, items), key=lambda pair: -pair[0]):
        out.insert(position, item)
    return out


def others(dice, gold, first, rest):
    """15 words that are not `gold`: those of `first`, then drawn from `rest`."""
    near = [w for w in dict.fromkeys(first) if w != gold][:CANDIDATES]
    free = [w for w in rest if w != gold and w not in near]
    return near + dice.sample(free, CANDIDATES - len(near))


def sentences_of(case, dice):
    """`size` sentences, from a place of the text that the dice choose."""
    start = dice.below(len(case.sentences))
    return [case.sentences[(start + i) % len(case.sentences)] for i in range(case.size)]


def two_words(words):
    """Keys of two words each, as RULER's adjective and noun: one word is found less surely."""
    return [f"{a} {b}" for a, b in zip(words[::2], words[1::2])]


# --- RULER (Hsieh et al. 2024, arXiv:2404.06654), section 3: needles -----------------------------

NEEDLE = "The special magic word for {} is: {}."
# Where keys must be told apart, a key of two words and its value stand side by side.
CLOSE_NEEDLE = "The special magic word for {}: {}."


def needles(case, dice, keys, values, asked, lead):
    """`lead` is forced before the first answer; `asked` lists (text before the answer, value)."""
    pairs = [(key, value) for key, many in zip(keys, values) for value in many]
    form = NEEDLE if len(keys) == 1 else CLOSE_NEEDLE
    told = [form.format(key, value) for key, value in pairs]
    body = " ".join(place(sentences_of(case, dice), case.depth, told))
    golds = [value for _, value in asked]
    in_keys = " ".join(keys).split()
    rest = [w for w in case.words if w not in in_keys and w not in golds]
    near = [value for _, value in pairs]
    fields = []
    for i, (before, gold) in enumerate(asked):
        # Several values of one key have no order: a value of the same key is no wrong answer.
        wrong = [v for k, v in pairs if (k, gold) not in pairs] if len(values[0]) > 1 else near
        before = (lead if i == 0 else "") + before
        fields.append(Field(before, gold, others(dice, gold, wrong, rest)))
    return body, fields, pairs


INTRO = (
    "Some special magic words are hidden within the following text. Make sure to memorize them. "
    "I will quiz you about them afterwards.\n"
)


def niah(case, n_keys, n_values, n_asked):
    dice = Dice(case.seed)
    in_key = 1 if n_keys == 1 else 2
    drawn = dice.sample(case.words, n_keys * (in_key + n_values))
    keys, rest = drawn[: in_key * n_keys], drawn[in_key * n_keys :]
    keys, colon = (keys, " is:") if in_key == 1 else (two_words(keys), ":")
    values = [rest[i * n_values : (i + 1) * n_values] for i in range(n_keys)]
    if n_values > 1:
        what = f"all the special magic words for {keys[0]}"
        asked = [(" " if i == 0 else ", ", v) for i, v in enumerate(values[0])]
        lead = f"The special magic words for {keys[0]} are:"
    elif n_asked > 1:
        what = "the special magic words for " + ", ".join(keys[:n_asked])
        asked = [
            (("" if i == 0 else " ") + f"The special magic word for {k}{colon} ", v[0])
            for i, (k, v) in enumerate(zip(keys[:n_asked], values))
        ]
        # After the first answer the sentence ends.
        asked = [(("." if i else "") + before, v) for i, (before, v) in enumerate(asked)]
        lead = ""
    else:
        what = f"the special magic word for {keys[0]}"
        asked, lead = [(" ", values[0][0])], f"The special magic word for {keys[0]}{colon}"
    body, fields, pairs = needles(case, dice, keys, values, asked, lead)
    verb = "are" if n_values > 1 or n_asked > 1 else "is"
    question = f"What {verb} {what} mentioned in the provided text?"
    return Draft(INTRO + body, body, question, fields, ".", pairs)


def niah_single(case):
    return niah(case, 1, 1, 1)


def niah_multikey(case):
    return niah(case, 4, 1, 1)


def niah_multivalue(case):
    return niah(case, 1, 4, 1)


def niah_multiquery(case):
    return niah(case, 4, 1, 4)


# --- RULER: variable tracking, common words, frequent words --------------------------------------


def vt(case, hops=4, chains=3):
    """RULER's chains, with words for names and values, and two chains to be mistaken for the
    first. The continuation repeats the chain's assignments; each further name is judged."""
    dice = Dice(case.seed)
    drawn = dice.sample(case.words, chains * (hops + 2))
    told, names, facts = [], [], []
    for c in range(chains):
        value, *chain = drawn[c * (hops + 2) : (c + 1) * (hops + 2)]
        lines = [f"VAR {chain[0]} = {value}."]
        lines += [f"VAR {a} is copied to VAR {b}." for a, b in zip(chain, chain[1:])]
        told.append(lines)
        names.append(chain)
        facts.append((value, chain))
    pieces = sentences_of(case, dice)
    # Chains are woven into one another; the order inside each is kept.
    woven = [told[c][i] for i in range(hops + 1) for c in range(chains)]
    first = round(case.depth * len(pieces) / 2)
    step = max(1, (len(pieces) - first) // len(woven))
    for i in reversed(range(len(woven))):
        pieces.insert(min(first + i * step, len(pieces)), woven[i])
    body = " ".join(pieces)
    wrong = [name for chain in names[1:] for name in chain[1:]]
    rest = [w for w in case.words if w not in drawn]
    chain, value = names[0], facts[0][0]
    fields = []
    for i, (a, b) in enumerate(zip(chain, chain[1:])):
        lead = f"VAR {chain[0]} = {value}." if i == 0 else "."
        lead += f" VAR {a} is copied to VAR "
        fields.append(Field(lead, b, others(dice, b, wrong, rest)))
    question = f"Which variables hold the value {value}? Follow the copies in the text above."
    text = "Memorize the chains of variable assignments hidden in the following text.\n" + body
    return Draft(text, body, question, fields, ".", facts)


def cwe(case, common=10):
    """Common words: ten stand in the list several times as often as the others. Any order of the
    ten is right, so each is ranked against words of the others only."""
    dice = Dice(case.seed)
    words = dice.shuffled(case.words)
    top, rest = words[:common], words[common:]
    repeats = max(4, case.size // 2 // common)
    tail = [rest[i % len(rest)] for i in range(max(CANDIDATES, case.size - repeats * common))]
    listed = dice.shuffled(top * repeats + tail)
    body = " ".join(f"{i + 1}. {w}" for i, w in enumerate(listed))
    lead = f"The {common} words that appear most often in the list are:"
    wrong = list(dict.fromkeys(tail))
    fields = [
        Field((lead if i == 0 else "") + f" {i + 1}. ", w, dice.sample(wrong, CANDIDATES))
        for i, w in enumerate(top)
    ]
    text = "Below is a numbered list of words. Memorize the ones that appear most often.\n" + body
    question = f"What are the {common} most common words in the above list?"
    return Draft(text, body, question, fields, "", (top, listed))


def fwe(case, ranks=40):
    """Frequent words: frequencies fall as rank^-2 (RULER's zeta of 2); rank 1 is noise, written
    `...`; the three that follow are asked for, each ranked against those below the three."""
    dice = Dice(case.seed)
    words = dice.sample(case.words, ranks)
    weight = [(r + 1) ** -2.0 for r in range(ranks)]
    total = sum(weight)
    counts = [max(1, round(case.size * w / total)) for w in weight]
    named = ["...", *words[1:]]
    listed = dice.shuffled([w for w, count in zip(named, counts) for _ in range(count)])
    body = " ".join(listed)
    lead = "The three most frequently appeared coded words are:"
    wrong = words[4:]
    fields = [
        Field((lead if i == 0 else ",") + " ", w, dice.sample(wrong, CANDIDATES))
        for i, w in enumerate(words[1:4])
    ]
    text = (
        "Read the following coded text and track the frequency of each coded word. Find the three "
        "most frequently appeared coded words.\n" + body
    )
    question = (
        "What are the three most frequently appeared words in the above coded text? Ignore the dots."
    )
    return Draft(text, body, question, fields, ".", (words, counts, listed))


# --- retrieval by key ----------------------------------------------------------------------------


def kv_recall(case):
    """One value of a JSON object, after "Lost in the Middle" (Liu et al. 2023, arXiv:2307.03172),
    with two words for a key's UUID and one for the value's. The continuation is the object's line
    with that key."""
    dice = Dice(case.seed)
    n = min(case.size, len(case.words))
    key1, key2, value1, value2 = (dice.shuffled(case.words)[:n] for _ in range(4))
    keys = [f"{a} {b}" for a, b in zip(key1, key2)]
    values = [f"{a} {b}" for a, b in zip(value1, value2)]
    at = round(case.depth * (n - 1))
    lines = [f' "{k}": "{v}"' for k, v in zip(keys, values)]
    body = "{\n" + ",\n".join(lines) + "\n}"
    lead, gold = f'{{\n "{keys[at]}": "{value1[at]} ', value2[at]
    near = dice.shuffled([v for v in value2 if v != gold])
    judged = Field(lead, gold, others(dice, gold, near, case.words))
    text = "Extract the value that belongs to a key of the JSON object below.\n" + body
    question = f'What is the value of the key "{keys[at]}"?'
    return Draft(text, body, question, [judged], '"', dict(zip(keys, values)))


def chain_of_key(case, hops=4, astray=24):
    """RefreshKV (Xu et al. 2025, arXiv:2411.05787 v2): keys of W = 2 words, and a chain of keys
    where each begins with the word that the one before ends with. There, the keys fill the text
    and T = 10; here 4 keys of the chain and 24 others stand between noise sentences. Every word
    begins one key at most, so there is one chain. The second word of each of its keys is judged."""
    dice = Dice(case.seed)
    words = dice.shuffled(case.words)
    chain, rest = words[: hops + 1], words[hops + 1 :]
    middle, rest = rest[:hops], rest[hops:]
    # Keys that lead nowhere.
    first, second, third = (rest[i * astray : (i + 1) * astray] for i in range(3))
    links = list(zip(chain, middle, chain[1:]))
    keys = dice.shuffled(list(zip(first, second, third)) + links[1:])
    keys.insert(round(case.depth * len(keys)), links[0])  # depth is that of the first link
    noise = sentences_of(case, dice)
    pieces = []
    for i, key in enumerate(keys):
        pieces += noise[i * len(noise) // len(keys) : (i + 1) * len(noise) // len(keys)]
        pieces.append("KEY: " + " ".join(key) + ".")
    body = " ".join(pieces)
    free = [w for w in rest if w not in third]
    fields = []
    for i, (a, b, c) in enumerate(links):
        lead = "KEY: " if i == 0 else ". KEY: "
        fields.append(Field(f"{lead}{a} {b} ", c, others(dice, c, third, free)))
    text = (
        "Keys of three words are hidden within the following text. Make a chain of keys: the first "
        "word of the next key is the last word of the key before.\n" + body
    )
    question = f"Write a chain of {hops} keys that starts with the word {chain[0]}."
    return Draft(text, body, question, fields, ".", (chain, keys))


COLUMNS = ("Name", "Place")
EXAMPLE = (("first one", "second one"), ("third one", "fourth one"))


def html_table(title, rows):
    lines = [f"<h2>Table {title}</h2>", "<table>"]
    lines.append("<tr>" + "".join(f"<th>{c}</th>" for c in COLUMNS) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>\n"])


def tsv_table(title, rows):
    return "\n".join([f"Table {title}", *("\t".join(row) for row in (COLUMNS, *rows))])


def table_to_tsv(case, rows=3):
    """A page of HTML tables, one of which is to be written as TSV: after HTML-to-TSV of LongProc
    (arXiv:2501.05414), the task of RefreshKV's Table 10. A worked example stands before the page.
    Fields have two words; the last one is judged against those of its column in all tables."""
    dice = Dice(case.seed)
    width = len(COLUMNS)
    n = max(3, min(case.size, len(case.words) // (rows * width)))
    titles = dice.sample(case.words, n)
    left, right = (dice.sample(case.words, n * rows * width) for _ in range(2))
    cells = [f"{a} {b}" for a, b in zip(left, right)]
    tables = [[cells[(t * rows + r) * width :][:width] for r in range(rows)] for t in range(n)]
    at = round(case.depth * (n - 1))
    page = "".join(html_table(title, table) for title, table in zip(titles, tables))
    fields, column = [], [[row[c].split()[1] for t in tables for row in t] for c in range(width)]
    for r, row in enumerate(tables[at]):
        for c, cell in enumerate(row):
            given, gold = cell.split()
            lead = "\t" if c else "\n" if r else tsv_table(titles[at], ()) + "\n"
            near = dice.shuffled(column[c])
            fields.append(Field(f"{lead}{given} ", gold, others(dice, gold, near, case.words)))
    asked = "Convert the table {} to TSV."
    shown = [html_table("example", EXAMPLE) + asked.format("example"), tsv_table("example", EXAMPLE)]
    text = "\n".join([*shown, "", "Below is a web page with tables.", page])
    return Draft(text, page, asked.format(titles[at]), fields, "\n", (titles, tables, at))


TASKS = {
    "niah-single": niah_single,
    "niah-multikey": niah_multikey,
    "niah-multivalue": niah_multivalue,
    "niah-multiquery": niah_multiquery,
    "vt": vt,
    "cwe": cwe,
    "fwe": fwe,
    "kv-recall": kv_recall,
    "chain-of-key": chain_of_key,
    "table-to-tsv": table_to_tsv,
}
