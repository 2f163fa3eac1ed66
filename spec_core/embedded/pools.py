"""Word pools of the generators, cut into disjoint parts per split; does not know the templates."""

FIRST = """Ada Boris Carla Dmitri Elena Farid Grace Hugo Ines Jonas Kofi Lena Marta Nils Olga
Pedro Quinn Rosa Samir Tara Umar Vera Wanda Xenia Yusuf Zoe Aaron Bella Cyrus Diana Emil Fiona
Gavin Hana Ivan Julia Karim Laura Milan Nadia Oscar Paula Ramon Sofia Tomas Ursula Viktor Willa
Yara Zeno"""
CITIES = """Lisbon Oslo Quito Nairobi Lima Osaka Turin Malmo Dakar Bergen Porto Cusco Leeds Graz
Lyon Bilbao Tampere Ghent Basel Kyoto Hanoi Perth Boston Denver Austin Tucson Calgary Halifax
Cordoba Rosario Accra Tunis Fez Amman Izmir Varna Split Brno Gdansk Vilnius"""
ITEMS = """lamp chair kettle basket ladder mirror pillow blanket hammer wrench pencil notebook
carpet curtain bucket shovel candle bottle teapot saucer drawer cabinet printer keyboard monitor
speaker camera tripod helmet jacket scarf gloves wallet ribbon button needle thread kite drum
violin"""
COLOURS = """red blue green yellow purple orange black white silver golden brown pink grey violet
crimson scarlet amber ivory teal navy"""
VERBS = """opened carried painted repaired borrowed dropped measured cleaned returned ordered sold
packed washed inspected wrapped folded weighed moved collected delivered"""
PLACES = """kitchen garden library station market harbour office museum theatre workshop school
hospital bakery warehouse factory airport hotel chapel stadium bridge"""
SERVICES = """auth billing search mailer gateway cache scheduler indexer uploader reporter
inventory payments sessions metrics router notifier archive catalog shipping gallery"""
TABLES = """orders users invoices products events tickets messages accounts payments reviews
uploads devices sensors projects contracts"""
NOISE = """apple river stone cloud tiger window planet silver marble forest rocket pepper anchor
velvet copper bishop lemon castle dragon engine falcon guitar hammer island jungle kitten lantern
magnet nectar oyster parrot quartz ribbon saddle temple umbrella violet walnut yellow zebra bronze
candle desert ember feather glacier harvest insect jacket kernel ladder meadow needle orchid
pillow rabbit shadow thunder unicorn valley whisper canyon basket circle dolphin eagle flame
garden hollow igloo jigsaw knight legend mirror novel ocean puzzle queen raven summit tunnel
vessel wizard arrow"""

PARTS = {"train": (0, 1, 2), "dev": (3,), "test": (4,)}


def pool(words: str, split: str) -> list[str]:
    """Return the words of the pool that belong to the split."""
    return [word for i, word in enumerate(words.split()) if i % 5 in PARTS[split]]
