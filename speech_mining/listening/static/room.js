"use strict";
// The listening room. Everything that comes from the server goes into the page as text, except the chart, which holds
// nothing but numbers.
const by = (id) => document.getElementById(id);
const sides = ["source", "target"];
const part = (side, what) => by(side).querySelector(what);
const player = (side) => part(side, "audio");
let pair = null, playing = [], arrival = 0;

async function ask(path, body) {
  const asked = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer, told;
  try {
    answer = await fetch(path, asked);
    told = await answer.json();
  } catch {
    throw new Error("The listening room does not answer. Start it again: what was judged is kept.");
  }
  if (!answer.ok) throw new Error(told.error || `The server answers ${answer.status}.`);
  return told;
}

function notice(text) {
  by("notice").hidden = !text;
  by("notice").textContent = text;
}

async function guarded(work) {
  try { await work(); } catch (problem) { notice(problem.message); }
}

// ---- a pair

async function go(position, play) {
  if (position === null || position === undefined) return;
  stop();
  const turn = ++arrival;
  const found = await ask(`/api/pairs/${position}`);
  if (turn !== arrival) return;
  pair = found;
  history.replaceState(null, "", `#${position}`);
  for (const side of sides) show(side, pair[side]);
  by("place").textContent = `pair ${position + 1} of ${total}`;
  showVerdict();
  showFacts();
  if (play && by("arrive").checked) playBoth();
  if (pair.next !== null && pair.next !== position) warm(pair.next);
}

function show(side, told) {
  const box = by(side), sound = player(side), written = told.text !== undefined;
  box.classList.toggle("written", written);
  part(side, ".text").textContent = told.text ?? "";
  part(side, ".text").lang = told.language;
  trouble(side, "");
  part(side, ".time").textContent = written ? "" : seconds(told.end_ms - told.start_ms);
  box.peaks = [];
  draw(side);
  if (written) { sound.removeAttribute("src"); return; }
  sound.src = `/audio/${told.id}.wav`;
  const turn = arrival;
  ask(`/peaks/${told.id}`).then((peaks) => { if (turn === arrival) { box.peaks = peaks; draw(side); } })
    .catch((problem) => { if (turn === arrival) trouble(side, problem.message); });
}

async function warm(position) {
  // the next pair is cut while this one is heard: an hour's recording takes seconds to decode
  try {
    const next = await ask(`/api/pairs/${position}`);
    for (const side of sides) if (next[side].text === undefined) await fetch(`/peaks/${next[side].id}`);
  } catch { /* it is told when the pair is asked for */ }
}

function trouble(side, text) {
  part(side, ".trouble").hidden = !text;
  part(side, ".trouble").textContent = text;
}

function showVerdict() {
  for (const button of document.querySelectorAll("[data-verdict]"))
    button.setAttribute("aria-pressed", String(button.dataset.verdict === pair.verdict));
  by("said").textContent = pair.verdict ? `· you said: ${pair.verdict}` : "";
}

function showFacts() {
  const rows = [["score", pair.score], ["cosine", pair.cosine]];
  for (const side of sides) {
    const told = pair[side], name = part(side, "h2").textContent;
    if (told.text !== undefined) { rows.push([name, told.place]); continue; }
    rows.push([name, `${told.title}: ${told.section}`], ["read by", told.readers],
      ["at", `${clock(told.start_ms)} to ${clock(told.end_ms)}`], ["recording", told.url]);
  }
  by("facts").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div"), term = document.createElement("dt"), fact = document.createElement("dd");
    term.textContent = name;
    fact.textContent = value;
    fact.dir = "auto";
    row.append(term, fact);
    return row;
  }));
}

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const clock = (ms) => `${Math.floor(ms / 60000)}:${((ms % 60000) / 1000).toFixed(2).padStart(5, "0")}`;

// ---- sound

function draw(side) {
  const canvas = part(side, ".wave"), pen = canvas.getContext("2d"), peaks = by(side).peaks || [];
  const colours = getComputedStyle(document.documentElement), sound = player(side);
  const heard = sound.duration ? sound.currentTime / sound.duration : 0;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const step = canvas.width / (peaks.length || 1);
  peaks.forEach((peak, place) => {
    const tall = Math.max(4, peak * canvas.height * .96);
    pen.fillStyle = colours.getPropertyValue(place / peaks.length < heard ? "--accent" : "--wave");
    pen.beginPath();
    pen.roundRect(place * step + step * .2, (canvas.height - tall) / 2, step * .6, tall, step * .3);
    pen.fill();
  });
}

function stop() {
  playing = [];
  for (const side of sides) player(side).pause();
}

function playBoth() {
  const spoken = sides.filter((side) => player(side).getAttribute("src"));
  for (const side of spoken) player(side).currentTime = 0;
  playNext(spoken);
}

function playNext(queue) {
  playing = queue.slice(1);
  if (!queue.length) return;
  player(queue[0]).play().catch((problem) => {
    // a browser plays nothing before the first key or click: then the listener begins
    if (problem.name === "NotSupportedError") trouble(queue[0], part(queue[0], ".trouble").textContent
      || "This recording cannot be played.");
  });
}

function playOne(side) {
  const sound = player(side);
  if (!sound.getAttribute("src")) return;
  if (!sound.paused) { stop(); return; }
  stop();
  if (sound.ended) sound.currentTime = 0;
  playNext([side]);
}

function pauseOrPlay() {
  const sounding = sides.some((side) => !player(side).paused);
  if (sounding) stop(); else playBoth();
}

for (const side of sides) {
  const sound = player(side);
  sound.addEventListener("ended", () => playNext(playing));
  for (const event of ["play", "pause", "ended"])
    sound.addEventListener(event, () => by(side).classList.toggle("playing", !sound.paused && !sound.ended));
  let frame = 0;
  const follow = () => { draw(side); frame = sound.paused ? 0 : requestAnimationFrame(follow); };
  sound.addEventListener("play", () => { if (!frame) follow(); });
  sound.addEventListener("seeked", () => draw(side));
  part(side, ".play").addEventListener("click", () => playOne(side));
  part(side, ".wave").addEventListener("click", (event) => {
    if (!sound.duration) return;
    const box = event.target.getBoundingClientRect();
    sound.currentTime = (event.clientX - box.left) / box.width * sound.duration;
    if (sound.paused) playOne(side);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => sides.forEach(draw));

// ---- judgements

async function say(verdict) {
  if (!pair) return;
  const { source, target, position } = pair;
  stop();
  const told = await ask("/api/judgements", { source: source.id, target: target.id, verdict });
  notice("");
  await refresh();
  if (verdict === "withdrawn") await go(position, false);
  else if (told.next !== null) await go(told.next, true);
  else { await go(position, false); notice("You have said something of every pair."); }
  by("main").focus({ preventScroll: true });
}

async function refresh() {
  const wanted = Math.min(99, Math.max(50, Number(by("precision").value) || 90)) / 100;
  const partly = by("partly").checked ? "right" : "wrong";
  const state = await ask(`/api/room?precision=${wanted}&partly=${partly}`);
  by("count").textContent = `${state.done} of ${state.goal} judged` + (state.skipped ? `, ${state.skipped} skipped` : "");
  by("bar").max = state.goal || 1;
  by("bar").value = Math.min(state.done, state.goal);
  by("chart").innerHTML = state.chart;
  by("suggestion").textContent = state.suggestion;
  const offer = state.adoptable && state.suggested !== null && state.suggested !== state.threshold;
  by("adopt").hidden = !offer;
  by("adopt").textContent = offer ? `Adopt ${state.suggested.toFixed(2)}` : "";
  by("adopt").value = offer ? state.suggested : "";
  if (state.bad_lines.length) {
    const lines = state.bad_lines.slice(0, 5).map((bad) => `line ${bad.line}: ${bad.why}`).join("; ");
    notice(`${state.bad_lines.length} lines of ${state.file} are no judgements and are left out (${lines}).`);
  }
  return state;
}

// ---- keys

const keys = {
  " ": pauseOrPlay, a: () => playOne("source"), b: () => playOne("target"),
  1: () => guarded(() => say("right")), 2: () => guarded(() => say("partly")), 3: () => guarded(() => say("wrong")),
  s: () => guarded(() => say("skipped")), u: () => guarded(() => say("withdrawn")),
  arrowright: () => move(1), arrowleft: () => move(-1),
  n: () => guarded(() => go(pair?.next, true)),
  i: () => { by("details").open = !by("details").open; },
  "?": () => by("help").showModal(),
};
let total = 0;

function move(by_) {
  if (pair && total) guarded(() => go((pair.position + by_ + total) % total, true));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || by("help").open) return;
  const at = event.target;
  if (at.matches("input[type=number]")) return;
  if (at.matches("button, summary, input") && [" ", "Enter"].includes(event.key)) return;
  const act = keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});
for (const button of document.querySelectorAll("[data-verdict]"))
  button.addEventListener("click", () => guarded(() => say(button.dataset.verdict)));
by("previous").addEventListener("click", () => move(-1));
by("next").addEventListener("click", () => move(1));
by("both").addEventListener("click", pauseOrPlay);
by("help-button").addEventListener("click", () => by("help").showModal());
by("precision").addEventListener("change", () => guarded(refresh));
by("partly").addEventListener("change", () => guarded(refresh));
by("adopt").addEventListener("click", () => guarded(async () => {
  const told = await ask("/api/threshold", { threshold: Number(by("adopt").value) });
  by("adopted").textContent = told.told;
}));
by("arrive").checked = localStorage.getItem("arrive") !== "no";
by("arrive").addEventListener("change", () => localStorage.setItem("arrive", by("arrive").checked ? "yes" : "no"));

guarded(async () => {
  const state = await refresh();
  total = state.total;
  if (!total) { notice("There are no pairs to listen to."); return; }
  const asked = Number(location.hash.slice(1));
  const named = location.hash.length > 1 && Number.isInteger(asked) && asked >= 0 && asked < total;
  await go(named ? asked : state.next ?? 0, false);
});
