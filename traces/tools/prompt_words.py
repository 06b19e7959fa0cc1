# SPDX-License-Identifier: Apache-2.0
"""Words that prompts are made of, the dice that draw them, and the text between them.

All is seeded and written out here: the same seed gives the same prompt on every machine and with
every version of Python and numpy.
"""

# Common English words that most byte-level vocabularies hold as one token, with a space before
# them and without. usable() keeps those for which that is so.
WORDS = """
acid acre actor adult agent alarm alien alpha altar amber anchor angel anger animal ankle apple arch
archive arrow artist atom author autumn axis baby back bacteria badge ball band bank bark barn base
basket bath beam bean bear beast bed beef bell belt bench berry bird bishop blade blood board boat
bomb bond bone book boot border bottle bottom bow bowl box boy brain branch brand brass bread breath
brick bridge broom brother brow brush bucket budget buffer bull bundle burn bush butter button cable
cake camera camp canal canvas cap car carbon card cart case cash castle cat cave cell chain chair
chalk chapter chart chest chief child chip choir church circle circuit city clay clerk clip clock
cloth cloud clown club coach coal coast coat code coffee coin cone cook copper cord core corn
cotton court cow craft cream creek crew crime crop cross crowd crown crystal cube cup currency curve
cycle dance data dawn day deck deer dentist desert desk device dial diamond diary dinner dirt disc
dish dock doctor dog dollar door dragon draw dream dress drill drink driver drop drum duck dust
eagle ear earth echo edge editor egg elder elm engine enzyme error evening eye fabric face factory
fairy faith farm father feast feather fence fever fiber field film finger fire fish flag flame flash
fleet floor flour flower fluid flux foam fog fold folk food foot forest fork form fort fox frame
friend frog frost fruit fuel game garden gas gate gear ghost gift girl glass globe glove goal goat
gold grain grape graph grass grave gravity grid ground group guard guest guide guitar gull
habit hair hall hammer hand harbor harp harvest hat hawk head heart heat hedge herb hero hill hip
hive hole home honey hood hook horn horse host hotel hour house hunter ice idea inch ink iron
island item ivory jacket jar jaw jewel judge juice jungle kernel key king kiss kit kitchen kite knee
knife knight label ladder lady lake lamb lamp land lane laser leader leaf leather legend lemon lens
letter level library light lily limb lime line lion lip list liver lock log lord lung machine magic
maid mail manager map maple marble market mask master match meal meat medal melon memory menu metal
meter milk mill mine mint mirror mist model money monitor monkey moon morning mother motor mountain
mouse mouth movie mud muscle museum music nail name nation neck needle nest net news night node noise
north nose note novel nurse oak oath ocean office oil olive opera orange orbit order organ oven owl
owner oxygen pack page paint pair palace palm pan panel paper parent park parrot party pasta paste
path peace peach peak pear pearl pen pencil people pepper phone photo piano pie pig pill pilot pin
pine pipe plain plane planet plant plate player plum pocket poem poet pole police pond pony pool port
post pot potato pound powder power press price prince print prison prize profit pump purse queen
quiet quilt rabbit race radar radio rail rain ranch rat record reef ribbon rice ridge rifle ring
river road robot rock rod roof room root rope rose route ruler sail salad salmon salt sand scale
scar school science screen sea seal season seat secret seed shadow shark sheep sheet shell shield
ship shirt shoe shop shore shoulder silk silver singer sister skin skirt sky sleep slope smoke
snake snow soap soil soldier song soup south space spear spice spider spine spirit spoon spring
square stable staff stage stair star station steam steel stem stick stock stomach stone storm stove
straw stream street string student sugar suit summer sun sweet sword symbol table tail tank tape
target tea teacher team temple tent theory thief thread throat throne thumb ticket tide tiger tile
timber tin toast tone tongue tool tooth torch tower town track trade traffic train tree tribe trip
truck trunk tube tunnel turtle valley vase vessel video village vine violin virus voice volcano voter
wagon wall war water wave wax weather web wedding weed well west whale wheat wheel wife wind window
wine wing winter wire witch wolf wood wool word worker world worm wound yard year youth zebra zone
""".split()

# The sentences that passkey tests since Mohtashami & Jaggi 2023 (arXiv:2305.16300) hide things in.
NOISE = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)

MASK = (1 << 64) - 1


def mix(x):
    """splitmix64's finaliser (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def derive(seed, index):
    """The seed of prompt `index`: 63 bits, so that an I64 holds it."""
    return mix(mix(seed & MASK) + index + 1) >> 1


class Dice:
    """splitmix64; the same numbers everywhere."""

    def __init__(self, seed):
        self.state = seed & MASK

    def below(self, n):
        """0..n-1. The bias, n / 2^64, is too small to matter."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return mix(self.state) % n

    def shuffled(self, items):
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, items, k):
        if k > len(items):
            raise ValueError(f"{k} different words needed, {len(items)} there")
        return self.shuffled(items)[:k]


def usable(encode):
    """WORDS that are one token with a space before them and one without."""
    return [w for w in WORDS if len(encode(" " + w)) == 1 and len(encode(w)) == 1]
