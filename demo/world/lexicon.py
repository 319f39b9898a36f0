"""The words of the miniature world: some 300 concepts, each with its forms in eng, deu, fra and spa.

Words, their inflected forms and their kinds belong here. How words become phrases and sentences is
`demo.world.grammar`; what a concept means as a vector is `demo.world.concepts`.

A concept is named by a letter for its sort and its English word: `n:king`, `v:saw`, `a:old`, `t:one day` (time),
`d:slowly` (adverb), `#:two`, `c:and`, `p:in`, `N:Anna`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["deu", "eng", "fra", "spa"]
LANGUAGES: tuple[Language, ...] = ("deu", "eng", "fra", "spa")
Gender: TypeAlias = Literal["m", "f", "n"]

# One noun a line. Kind (P person, A animal, F food, T thing, L place) | eng singular, plural |
# deu gender, singular, plural, singular outside the nominative | fra gender, singular, plural | spa likewise.
# A form left out is regular: plural in -s, German singular without ending.
_NOUNS = """
P|king|m König Könige|m roi|m rey reyes
P|queen|f Königin Königinnen|f reine|f reina
P|prince|m Prinz Prinzen Prinzen|m prince|m príncipe
P|princess princesses|f Prinzessin Prinzessinnen|f princesse|f princesa
P|boy|m Knabe Knaben Knaben|m garçon|m muchacho
P|girl|n Mädchen Mädchen|f fille|f muchacha
P|woman women|f Frau Frauen|f femme|f mujer mujeres
P|child children|n Kind Kinder|m enfant|m niño
P|mother|f Mutter Mütter|f mère|f madre
P|father|m Vater Väter|m père|m padre
P|brother|m Bruder Brüder|m frère|m hermano
P|sister|f Schwester Schwestern|f sœur|f hermana
P|grandmother|f Großmutter Großmütter|f grand-mère grands-mères|f abuela
P|uncle|m Onkel Onkel|m oncle|m tío
P|farmer|m Bauer Bauern Bauern|m paysan|m campesino
P|fisherman fishermen|m Fischer Fischer|m pêcheur|m pescador pescadores
P|hunter|m Jäger Jäger|m chasseur|m cazador cazadores
P|soldier|m Soldat Soldaten Soldaten|m soldat|m soldado
P|baker|m Bäcker Bäcker|m boulanger|m panadero
P|teacher|m Lehrer Lehrer|m professeur|m maestro
P|doctor|m Arzt Ärzte|m médecin|m médico
P|thief thieves|m Dieb Diebe|m voleur|m ladrón ladrones
P|captain|m Kapitän Kapitäne|m capitaine|m capitán capitanes
P|sailor|m Matrose Matrosen Matrosen|m matelot|m marinero
P|shepherd|m Hirte Hirten Hirten|m berger|m pastor pastores
P|miller|m Müller Müller|m meunier|m molinero
P|tailor|m Schneider Schneider|m tailleur|m sastre
P|monk|m Mönch Mönche|m moine|m monje
P|witch witches|f Hexe Hexen|f sorcière|f bruja
P|wizard|m Zauberer Zauberer|m magicien|m mago
P|giant|m Riese Riesen Riesen|m géant|m gigante
P|dwarf dwarfs|m Zwerg Zwerge|m nain|m enano
P|neighbour|m Nachbar Nachbarn Nachbarn|m voisin|m vecino
P|servant|m Diener Diener|m serviteur|m criado
P|merchant|m Händler Händler|m marchand|m comerciante
P|knight|m Ritter Ritter|m chevalier|m caballero
P|judge|m Richter Richter|m juge|m juez jueces
A|dragon|m Drache Drachen Drachen|m dragon|m dragón dragones
A|dog|m Hund Hunde|m chien|m perro
A|cat|f Katze Katzen|m chat|m gato
A|horse|n Pferd Pferde|m cheval chevaux|m caballo
A|wolf wolves|m Wolf Wölfe|m loup|m lobo
A|fox foxes|m Fuchs Füchse|m renard|m zorro
A|bear|m Bär Bären Bären|m ours ours|m oso
A|bird|m Vogel Vögel|m oiseau oiseaux|m pájaro
A|cow|f Kuh Kühe|f vache|f vaca
A|sheep sheep|n Schaf Schafe|m mouton|f oveja
A|mouse mice|f Maus Mäuse|f souris souris|m ratón ratones
A|lion|m Löwe Löwen Löwen|m lion|m león leones
A|rabbit|n Kaninchen Kaninchen|m lapin|m conejo
A|goat|f Ziege Ziegen|f chèvre|f cabra
A|duck|f Ente Enten|m canard|m pato
A|snake|f Schlange Schlangen|m serpent|f serpiente
A|monkey|m Affe Affen Affen|m singe|m mono
A|elephant|m Elefant Elefanten Elefanten|m éléphant|m elefante
A|frog|m Frosch Frösche|f grenouille|f rana
F|bread|n Brot Brote|m pain|m pan panes
F|apple|m Apfel Äpfel|f pomme|f manzana
F|cheese|m Käse Käse|m fromage|m queso
F|cake|m Kuchen Kuchen|m gâteau gâteaux|m pastel pasteles
F|egg|n Ei Eier|m œuf|m huevo
F|fish fish|m Fisch Fische|m poisson|m pez peces
F|pear|f Birne Birnen|f poire|f pera
F|nut|f Nuss Nüsse|f noix noix|f nuez nueces
F|onion|f Zwiebel Zwiebeln|m oignon|f cebolla
F|potato potatoes|f Kartoffel Kartoffeln|f patate|f papa
F|soup|f Suppe Suppen|f soupe|f sopa
T|book|n Buch Bücher|m livre|m libro
T|letter|m Brief Briefe|f lettre|f carta
T|key|m Schlüssel Schlüssel|f clé|f llave
T|sword|n Schwert Schwerter|f épée|f espada
T|crown|f Krone Kronen|f couronne|f corona
T|ring|m Ring Ringe|m anneau anneaux|m anillo
T|lamp|f Lampe Lampen|f lampe|f lámpara
T|candle|f Kerze Kerzen|f bougie|f vela
T|knife knives|n Messer Messer|m couteau couteaux|m cuchillo
T|table|m Tisch Tische|f table|f mesa
T|chair|m Stuhl Stühle|f chaise|f silla
T|bed|n Bett Betten|m lit|f cama
T|door|f Tür Türen|f porte|f puerta
T|window|n Fenster Fenster|f fenêtre|f ventana
T|box boxes|f Kiste Kisten|f boîte|f caja
T|bag|f Tasche Taschen|m sac|f bolsa
T|map|f Karte Karten|f carte|m mapa
T|coin|f Münze Münzen|f pièce|f moneda
T|stone|m Stein Steine|f pierre|f piedra
T|flower|f Blume Blumen|f fleur|f flor flores
T|tree|m Baum Bäume|m arbre|m árbol árboles
T|boat|n Boot Boote|m bateau bateaux|m barco
T|cart|m Wagen Wagen|f charrette|f carreta
T|hat|m Hut Hüte|m chapeau chapeaux|m sombrero
T|coat|m Mantel Mäntel|m manteau manteaux|m abrigo
T|shoe|m Schuh Schuhe|f chaussure|m zapato
T|shirt|n Hemd Hemden|f chemise|f camisa
T|mirror|m Spiegel Spiegel|m miroir|m espejo
T|picture|n Bild Bilder|m tableau tableaux|m cuadro
T|clock|f Uhr Uhren|f horloge|m reloj relojes
T|bell|f Glocke Glocken|f cloche|f campana
T|drum|f Trommel Trommeln|m tambour|m tambor tambores
T|violin|f Geige Geigen|m violon|m violín violines
T|rope|n Seil Seile|f corde|f cuerda
T|bottle|f Flasche Flaschen|f bouteille|f botella
T|cup|m Becher Becher|f tasse|f taza
T|plate|m Teller Teller|f assiette|m plato
T|spoon|m Löffel Löffel|f cuillère|f cuchara
T|basket|m Korb Körbe|m panier|m cesto
T|feather|f Feder Federn|f plume|f pluma
T|bone|m Knochen Knochen|m os os|m hueso
T|ladder|f Leiter Leitern|f échelle|f escalera
T|hammer|m Hammer Hämmer|m marteau marteaux|m martillo
T|needle|f Nadel Nadeln|f aiguille|f aguja
T|umbrella|m Regenschirm Regenschirme|m parapluie|m paraguas paraguas
T|treasure|m Schatz Schätze|m trésor|m tesoro
T|wheel|n Rad Räder|f roue|f rueda
L|forest|m Wald Wälder|f forêt|m bosque
L|river|m Fluss Flüsse|m fleuve|m río
L|lake|m See Seen|m lac|m lago
L|mountain|m Berg Berge|f montagne|f montaña
L|valley|n Tal Täler|f vallée|m valle
L|field|n Feld Felder|m champ|m campo
L|garden|m Garten Gärten|m jardin|m jardín jardines
L|house|n Haus Häuser|f maison|f casa
L|castle|n Schloss Schlösser|m château châteaux|m castillo
L|tower|m Turm Türme|f tour|f torre
L|church churches|f Kirche Kirchen|f église|f iglesia
L|village|n Dorf Dörfer|m village|m pueblo
L|city cities|f Stadt Städte|f ville|f ciudad ciudades
L|market|m Markt Märkte|m marché|m mercado
L|bridge|f Brücke Brücken|m pont|m puente
L|street|f Straße Straßen|f rue|f calle
L|mill|f Mühle Mühlen|m moulin|m molino
L|school|f Schule Schulen|f école|f escuela
L|kitchen|f Küche Küchen|f cuisine|f cocina
L|cellar|m Keller Keller|f cave|m sótano
L|cave|f Höhle Höhlen|f grotte|f cueva
L|island|f Insel Inseln|f île|f isla
L|beach beaches|m Strand Strände|f plage|f playa
L|desert|f Wüste Wüsten|m désert|m desierto
L|inn|n Gasthaus Gasthäuser|f auberge|f posada
L|stable|m Stall Ställe|f étable|m establo
L|prison|n Gefängnis Gefängnisse|f prison|f cárcel cárceles
L|harbour|m Hafen Häfen|m port|m puerto
L|hut|f Hütte Hütten|f cabane|f cabaña
L|hill|m Hügel Hügel|f colline|f colina
L|meadow|f Wiese Wiesen|f prairie|f pradera
L|palace|m Palast Paläste|m palais palais|m palacio
L|library libraries|f Bibliothek Bibliotheken|f bibliothèque|f biblioteca
"""

# Kinds of subject | kinds of object | third person singular, past: eng | deu | fra | spa
_TRANSITIVE = """
PA|PAFTL|saw|sah|vit|vio
PA|PAFT|found|fand|trouva|encontró
PA|FT|took|nahm|prit|tomó
PA|PAFT|carried|trug|porta|llevó
PA|PAFT|brought|brachte|apporta|trajo
P|AFT|bought|kaufte|acheta|compró
P|AFT|sold|verkaufte|vendit|vendió
PA|AFT|stole|stahl|vola|robó
P|AFT|lost|verlor|perdit|perdió
PA|PAFT|hid|versteckte|cacha|escondió
PA|T|broke|zerbrach|brisa|rompió
P|PATL|painted|malte|peignit|pintó
P|TL|cleaned|putzte|nettoya|limpió
P|FT|washed|wusch|lava|lavó
P|T|opened|öffnete|ouvrit|abrió
P|FT|threw|warf|jeta|lanzó
PA|AF|caught|fing|attrapa|atrapó
PA|PA|followed|verfolgte|suivit|siguió
P|PA|called|rief|appela|llamó
PA|PL|visited|besuchte|visita|visitó
PA|PATL|loved|liebte|aima|amó
PA|PA|feared|fürchtete|craignit|temió
PA|PAFL|hated|hasste|détesta|odió
P|P|greeted|grüßte|salua|saludó
P|PA|kissed|küsste|embrassa|besó
P|PAT|hit|schlug|frappa|golpeó
PA|PA|killed|tötete|tua|mató
PA|AFT|wanted|wollte|voulut|quiso
PA|F|ate|aß|mangea|comió
P|F|cooked|kochte|cuisina|cocinó
P|FT|cut|schnitt|coupa|cortó
P|T|repaired|reparierte|répara|reparó
PA|PA|heard|hörte|entendit|oyó
PA|PAFT|touched|berührte|toucha|tocó
PA|PAL|watched|beobachtete|observa|observó
P|PFTL|forgot|vergaß|oublia|olvidó
PA|PAFTL|sought|suchte|chercha|buscó
P|AFT|counted|zählte|compta|contó
P|TL|burned|verbrannte|brûla|quemó
P|TL|built|baute|construisit|construyó
P|PAFT|held|hielt|tint|sostuvo
PA|PAT|pushed|schob|poussa|empujó
P|PAFT|lifted|hob|souleva|levantó
PA|PA|saved|rettete|sauva|salvó
P|PA|freed|befreite|libéra|liberó
P|P|praised|lobte|loua|alabó
P|FT|paid for|bezahlte|paya|pagó
PA|PA|woke|weckte|réveilla|despertó
P|PA|fed|fütterte|nourrit|alimentó
P|PATL|drew|zeichnete|dessina|dibujó
PA|PATL|admired|bewunderte|admira|admiró
PA|PAL|recognised|erkannte|reconnut|reconoció
PA|PL|left|verließ|quitta|abandonó
P|PATL|guarded|bewachte|garda|vigiló
PA|PA|protected|beschützte|protégea|protegió
PA|P|deceived|betrog|trompa|engañó
"""

_DITRANSITIVE = """
gave|gab|donna|dio
sent|schickte|envoya|envió
showed|zeigte|montra|mostró
promised|versprach|promit|prometió
lent|lieh|prêta|prestó
"""

# Kinds of subject | eng | deu | fra | spa
_INTRANSITIVE = """
PA|slept|schlief|dormit|durmió
P|laughed|lachte|rit|rio
P|wept|weinte|pleura|lloró
PA|ran|rannte|courut|corrió
PA|swam|schwamm|nagea|nadó
PA|danced|tanzte|dansa|bailó
PA|sang|sang|chanta|cantó
PA|waited|wartete|attendit|esperó
PA|fell|fiel|tomba|cayó
P|worked|arbeitete|travailla|trabajó
PA|dreamed|träumte|rêva|soñó
P|shouted|schrie|cria|gritó
PA|lived|lebte|vécut|vivió
PA|played|spielte|joua|jugó
PA|fought|kämpfte|combattit|luchó
PA|trembled|zitterte|trembla|tembló
PA|died|starb|mourut|murió
P|prayed|betete|pria|rezó
P|coughed|hustete|toussa|tosió
P|smiled|lächelte|sourit|sonrió
PA|appeared|erschien|apparut|apareció
PA|disappeared|verschwand|disparut|desapareció
PA|snored|schnarchte|ronfla|roncó
P|whispered|flüsterte|chuchota|susurró
PA|climbed|kletterte|grimpa|trepó
PA|stayed|blieb|resta|permaneció
"""

# Kinds it may describe | eng | deu | fra before or after the noun, masculine, feminine, masculine before a vowel |
# spa masculine, feminine, and `estar` where it names a state rather than a trait
_ADJECTIVES = """
PATL|old|alt|pre vieux vieille vieil|viejo vieja
PA|young|jung|pre jeune jeune|joven joven
PAFTL|small|klein|pre petit petite|pequeño pequeña
PAFTL|big|groß|pre grand grande|grande grande
P|poor|arm|post pauvre pauvre|pobre pobre
P|rich|reich|post riche riche|rico rica
FT|red|rot|post rouge rouge|rojo roja
FT|green|grün|post vert verte|verde verde
AFTL|white|weiß|post blanc blanche|blanco blanca
AFTL|black|schwarz|post noir noire|negro negra
T|blue|blau|post bleu bleue|azul azul
FT|yellow|gelb|post jaune jaune|amarillo amarilla
T|golden|golden|post doré dorée|dorado dorada
PATL|beautiful|schön|pre beau belle bel|hermoso hermosa
PATL|ugly|hässlich|post laid laide|feo fea
PA|strong|stark|post fort forte|fuerte fuerte
PA|weak|schwach|post faible faible|débil débil
PA|happy|glücklich|post heureux heureuse|feliz feliz estar
PA|sad|traurig|post triste triste|triste triste estar
PA|brave|mutig|post courageux courageuse|valiente valiente
PA|clever|klug|post malin maligne|listo lista
FT|heavy|schwer|post lourd lourde|pesado pesada
FL|cold|kalt|post froid froide|frío fría estar
FL|warm|warm|post chaud chaude|caliente caliente estar
TL|new|neu|pre nouveau nouvelle nouvel|nuevo nueva
T|long|lang|post long longue|largo larga
FT|round|rund|post rond ronde|redondo redonda
TL|dirty|schmutzig|post sale sale|sucio sucia estar
PA|wicked|böse|post méchant méchante|malvado malvada
PA|sick|krank|post malade malade|enfermo enferma estar
PA|tired|müde|post fatigué fatiguée|cansado cansada estar
PA|hungry|hungrig|post affamé affamée|hambriento hambrienta estar
PA|blind|blind|post aveugle aveugle|ciego ciega
TL|strange|seltsam|post étrange étrange|extraño extraña
FT|expensive|teuer|post cher chère|caro cara
L|dark|dunkel|post sombre sombre|oscuro oscura estar
L|empty|leer|post vide vide|vacío vacía estar
P|famous|berühmt|post célèbre célèbre|famoso famosa
"""

_TIMES = """
one morning|eines Morgens|un matin|una mañana
in the evening|am Abend|le soir|por la tarde
at night|in der Nacht|la nuit|por la noche
in winter|im Winter|en hiver|en invierno
in summer|im Sommer|en été|en verano
in spring|im Frühling|au printemps|en primavera
in autumn|im Herbst|en automne|en otoño
one day|eines Tages|un jour|un día
yesterday|gestern|hier|ayer
then|dann|ensuite|entonces
suddenly|plötzlich|soudain|de repente
later|später|plus tard|más tarde
soon|bald|bientôt|pronto
finally|schließlich|enfin|finalmente
at midnight|um Mitternacht|à minuit|a medianoche
at noon|am Mittag|à midi|al mediodía
on Sunday|am Sonntag|dimanche|el domingo
on Monday|am Montag|lundi|el lunes
on Friday|am Freitag|vendredi|el viernes
long ago|vor langer Zeit|il y a longtemps|hace mucho tiempo
the next day|am nächsten Tag|le lendemain|al día siguiente
every year|jedes Jahr|chaque année|cada año
"""

_ADVERBS = """
slowly|langsam|lentement|lentamente
quickly|schnell|rapidement|rápidamente
quietly|leise|doucement|silenciosamente
loudly|laut|bruyamment|ruidosamente
always|immer|toujours|siempre
often|oft|souvent|a menudo
secretly|heimlich|secrètement|secretamente
in vain|vergeblich|en vain|en vano
gladly|gern|volontiers|con gusto
"""

_NUMBERS = """
two|zwei|deux|dos
three|drei|trois|tres
four|vier|quatre|cuatro
five|fünf|cinq|cinco
six|sechs|six|seis
seven|sieben|sept|siete
eight|acht|huit|ocho
nine|neun|neuf|nueve
ten|zehn|dix|diez
twelve|zwölf|douze|doce
twenty|zwanzig|vingt|veinte
a hundred|hundert|cent|cien
"""

# eng | deu (all with the dative here) | fra | spa | what may follow: L place, T thing, W only "someone with a thing"
_PREPOSITIONS = """
in|in|dans|en|L
behind|hinter|derrière|detrás de|LT
near|neben|près de|cerca de|LT
in front of|vor|devant|delante de|LT
under|unter|sous|bajo|T
on|auf|sur|sobre|T
with|mit|avec|con|W
"""

_CONJUNCTIONS = """
and|und|et|y
but|aber|mais|pero
because|weil|parce que|porque
while|während|pendant que|mientras
"""

_NAMES = "Anna Peter Maria Thomas Clara Martin Laura Daniel Sofia Victor Emma Oscar"

_IRREGULAR_PLURAL_SPA = {"joven": "jóvenes", "débil": "débiles"}


@dataclass(frozen=True)
class NounForms:
    """A noun in one language; `oblique` is the singular outside the nominative (German -n nouns differ)."""

    gender: Gender
    singular: str
    plural: str
    oblique: str


@dataclass(frozen=True)
class Noun:
    """A noun: its concept, its kind (P, A, F, T or L) and its forms by language."""

    concept: str
    kind: str
    forms: Mapping[Language, NounForms]


@dataclass(frozen=True)
class Verb:
    """A verb in the third person singular of the past; subjects and objects are the noun kinds it takes."""

    concept: str
    subjects: str
    objects: str
    forms: Mapping[Language, str]


@dataclass(frozen=True)
class Adjective:
    """An adjective: the noun kinds it may describe and its forms.

    French and Spanish forms are masculine and feminine singular; `fra_vowel` is the French masculine before a vowel,
    `fra_before` whether it precedes its noun, `state` whether Spanish says it with `estar`.
    """

    concept: str
    kinds: str
    eng: str
    deu: str
    fra: tuple[str, str]
    fra_vowel: str
    fra_before: bool
    spa: tuple[str, str]
    state: bool


@dataclass(frozen=True)
class Phrase:
    """A word or fixed phrase without inflection; `follows` is what a preposition may govern, else empty."""

    concept: str
    forms: Mapping[Language, str]
    follows: str = ""


def _rows(table: str) -> list[list[str]]:
    return [row.split("|") for row in table.strip().splitlines()]


def _by_language(eng: str, deu: str, fra: str, spa: str) -> dict[Language, str]:
    return {"deu": deu, "eng": eng, "fra": fra, "spa": spa}


def _noun_forms(gender: str, singular: str, plural: str = "", oblique: str = "") -> NounForms:
    genders: dict[str, Gender] = {"m": "m", "f": "f", "n": "n"}
    return NounForms(genders[gender], singular, plural or singular + "s", oblique or singular)


def _nouns() -> Iterator[Noun]:
    for kind, eng, deu, fra, spa in _rows(_NOUNS):
        forms: dict[Language, NounForms] = {
            "deu": _noun_forms(*deu.split()),
            "eng": _noun_forms("n", *eng.split()),
            "fra": _noun_forms(*fra.split()),
            "spa": _noun_forms(*spa.split()),
        }
        yield Noun("n:" + forms["eng"].singular, kind, forms)


def _adjectives() -> Iterator[Adjective]:
    for kinds, eng, deu, fra, spa in _rows(_ADJECTIVES):
        place, masculine, feminine, *vowel = fra.split()
        spa_masculine, spa_feminine, *estar = spa.split()
        yield Adjective(
            concept="a:" + eng,
            kinds=kinds,
            eng=eng,
            deu=deu,
            fra=(masculine, feminine),
            fra_vowel=vowel[0] if vowel else masculine,
            fra_before=place == "pre",
            spa=(spa_masculine, spa_feminine),
            state=bool(estar),
        )


def _phrases(table: str, letter: str) -> dict[str, Phrase]:
    phrases = {}
    for eng, deu, fra, spa, *follows in _rows(table):
        concept = f"{letter}:{eng}"
        phrases[concept] = Phrase(concept, _by_language(eng, deu, fra, spa), "".join(follows))
    return phrases


def _verb(subjects: str, objects: str, eng: str, deu: str, fra: str, spa: str) -> tuple[str, Verb]:
    return f"v:{eng}", Verb(f"v:{eng}", subjects, objects, _by_language(eng, deu, fra, spa))


NOUNS: Mapping[str, Noun] = {noun.concept: noun for noun in _nouns()}
TRANSITIVE: Mapping[str, Verb] = dict(_verb(*row) for row in _rows(_TRANSITIVE))
DITRANSITIVE: Mapping[str, Verb] = dict(_verb("P", "FT", *row) for row in _rows(_DITRANSITIVE))
INTRANSITIVE: Mapping[str, Verb] = dict(_verb(row[0], "", *row[1:]) for row in _rows(_INTRANSITIVE))
ADJECTIVES: Mapping[str, Adjective] = {adjective.concept: adjective for adjective in _adjectives()}
TIMES: Mapping[str, Phrase] = _phrases(_TIMES, "t")
ADVERBS: Mapping[str, Phrase] = _phrases(_ADVERBS, "d")
NUMBERS: Mapping[str, Phrase] = _phrases(_NUMBERS, "#")
CONJUNCTIONS: Mapping[str, Phrase] = _phrases(_CONJUNCTIONS, "c")
PREPOSITIONS: Mapping[str, Phrase] = _phrases(_PREPOSITIONS, "p")
NAMES: Mapping[str, Phrase] = {
    f"N:{name}": Phrase(f"N:{name}", _by_language(name, name, name, name)) for name in _NAMES.split()
}


def german_adjective(stem: str, ending: str) -> str:
    """Inflect a German adjective before its noun: `dunkel` + `en` is `dunklen`, `müde` + `e` is `müde`."""
    shortened = {"dunkel": "dunkl", "teuer": "teur"}.get(stem, stem.removesuffix("e"))
    return shortened + ending


def french_plural(adjective: str) -> str:
    """The plural of a French adjective: `vieux` stays, `beau` takes -x, the rest -s."""
    if adjective[-1] in "sx":
        return adjective
    return adjective + ("x" if adjective.endswith("eau") else "s")


def spanish_plural(adjective: str) -> str:
    """The plural of a Spanish adjective: `feliz` gives `felices`, `azul` `azules`, `joven` `jóvenes`."""
    if adjective in _IRREGULAR_PLURAL_SPA:
        return _IRREGULAR_PLURAL_SPA[adjective]
    if adjective.endswith("z"):
        return adjective[:-1] + "ces"
    return adjective + ("s" if adjective[-1] in "aeiou" else "es")


def adjective_forms(adjective: Adjective, language: Language) -> tuple[str, ...]:
    """Every form of an adjective that a sentence of the grammar can show, in table order, without repeats."""
    if language == "eng":
        forms = [adjective.eng]
    elif language == "deu":
        forms = [adjective.deu, *(german_adjective(adjective.deu, ending) for ending in ("e", "en", "er", "es"))]
    elif language == "fra":
        forms = [*adjective.fra, adjective.fra_vowel, *(french_plural(form) for form in adjective.fra)]
    else:
        forms = [*adjective.spa, *(spanish_plural(form) for form in adjective.spa)]
    return tuple(dict.fromkeys(forms))


def _fixed_forms(phrase: Phrase, language: Language) -> tuple[str, ...]:
    form = phrase.forms[language]
    if form == "in" and language == "deu":
        return form, "im"
    if language == "fra" and form.endswith(" de"):
        return form, form[:-1] + "u", form[:-1] + "'"
    if language == "fra" and form.endswith("que"):
        return form, form[:-1] + "'"
    if language == "spa" and form.endswith(" de"):
        return form, form + "l"
    return (form,)


def surface_forms(language: Language) -> dict[str, tuple[str, ...]]:
    """Every surface form of every concept in a language, contractions included (`im`, `près du`, `parce qu'`)."""
    forms: dict[str, tuple[str, ...]] = {}
    for noun in NOUNS.values():
        told = noun.forms[language]
        forms[noun.concept] = tuple(dict.fromkeys((told.singular, told.plural, told.oblique)))
    for adjective in ADJECTIVES.values():
        forms[adjective.concept] = adjective_forms(adjective, language)
    for verbs in (TRANSITIVE, DITRANSITIVE, INTRANSITIVE):
        forms.update({verb.concept: (verb.forms[language],) for verb in verbs.values()})
    for phrases in (TIMES, ADVERBS, NUMBERS, CONJUNCTIONS, PREPOSITIONS, NAMES):
        forms.update({phrase.concept: _fixed_forms(phrase, language) for phrase in phrases.values()})
    return forms
