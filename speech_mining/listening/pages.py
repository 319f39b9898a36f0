"""The page of the listening room: markup that never changes while it is open; `static/room.js` fills it.

Everything that comes from outside is put into the page as text, by the script; what stands here is escaped.
"""

from __future__ import annotations

from html import escape

from speech_mining.listening.room import Room


def language_name(code: str) -> str:
    """The English name of a language, ISO 639-3; the code where it has none."""
    import langcodes

    return str(langcodes.Language.get(code).display_name()) if langcodes.tag_is_valid(code) else code


def kind_told(room: Room) -> str:
    """Such as "speech with text"."""
    return f"{room.candidates.kind.source} with {room.candidates.kind.target}"


def room_page(room: Room) -> str:
    """The page of a room."""
    source, target = (language_name(code) for code in room.candidates.languages)
    title = f"{source} – {target}"
    return _PAGE.format(
        title=escape(title),
        kind=escape(kind_told(room)),
        judge=escape(room.judge),
        source=_side("source", source, "A"),
        target=_side("target", target, "B"),
    )


def _side(side: str, language: str, key: str) -> str:
    name = escape(language)
    return f"""<article class="side" id="{side}" aria-label="{name}">
<h2>{name}</h2>
<div class="heard">
<button class="play" type="button" data-play="{side}" aria-label="Play {name}"><span class="sign"></span></button>
<canvas class="wave" width="720" height="120" aria-hidden="true"></canvas>
<span class="time"></span><kbd>{key}</kbd>
</div>
<audio preload="auto"></audio>
<p class="text" dir="auto"></p>
<p class="trouble" role="alert" hidden></p>
</article>"""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: listening room</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/figures.css">
<link rel="stylesheet" href="/static/room.css">
<script src="/static/room.js" defer></script>
</head>
<body>
<header>
<div><h1>{title}</h1><p class="quiet">{kind}, judged by <bdi>{judge}</bdi></p></div>
<div class="progress"><p id="count" aria-live="polite"></p><progress id="bar" max="1" value="0"></progress></div>
<button id="help-button" type="button" class="round" aria-label="Keys">?</button>
</header>
<main id="main" tabindex="-1">
<p id="notice" class="notice" role="alert" hidden></p>
<section class="pair" aria-label="The pair">{source}{target}</section>
<section class="verdicts" aria-label="Is the second a translation of the first?">
<p class="question">Do both say the same?</p>
<div class="buttons">
<button type="button" data-verdict="right">Right <kbd>1</kbd></button>
<button type="button" data-verdict="partly">Partly <kbd>2</kbd></button>
<button type="button" data-verdict="wrong">Wrong <kbd>3</kbd></button>
</div>
<div class="moves">
<button type="button" id="previous" aria-label="Previous pair">←</button>
<button type="button" id="both">Play both <kbd>space</kbd></button>
<button type="button" data-verdict="skipped">Skip <kbd>S</kbd></button>
<button type="button" id="next" aria-label="Next pair">→</button>
</div>
<p class="quiet"><span id="place"></span> <span id="said" aria-live="polite"></span></p>
<label class="quiet"><input type="checkbox" id="arrive" checked> play when a pair arrives</label>
</section>
<details id="details"><summary>Score and recordings <kbd>I</kbd></summary><dl id="facts"></dl></details>
<section class="accuracy" aria-label="Accuracy by threshold">
<h2>Accuracy by threshold</h2>
<div id="chart"></div>
<p id="suggestion" aria-live="polite"></p>
<div class="wish">
<label>wanted precision <input type="number" id="precision" min="50" max="99" step="1" value="90"> %</label>
<label><input type="checkbox" id="partly"> partly counts as right</label>
<button type="button" id="adopt" hidden></button>
</div>
<p id="adopted" role="status"></p>
</section>
</main>
<dialog id="help" aria-label="Keys">
<h2>Keys</h2>
<dl>
<div><dt><kbd>space</kbd></dt><dd>play both, or pause</dd></div>
<div><dt><kbd>A</kbd> <kbd>B</kbd></dt><dd>play the first, the second</dd></div>
<div><dt><kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd></dt><dd>right, partly, wrong</dd></div>
<div><dt><kbd>S</kbd></dt><dd>skip: heard, but not judged</dd></div>
<div><dt><kbd>U</kbd></dt><dd>take back what was said of this pair</dd></div>
<div><dt><kbd>←</kbd> <kbd>→</kbd></dt><dd>previous, next pair</dd></div>
<div><dt><kbd>N</kbd></dt><dd>next pair that is not judged</dd></div>
<div><dt><kbd>I</kbd></dt><dd>score and recordings</dd></div>
<div><dt><kbd>?</kbd></dt><dd>these keys</dd></div>
</dl>
<form method="dialog"><button>Close</button></form>
</dialog>
</body>
</html>
"""
