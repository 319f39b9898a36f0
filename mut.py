import subprocess, sys, os
from pathlib import Path
M=[
("client","if response.status_code not in _REDIRECTS:","if True:"),
("client","            address = self._permitted(address)\n","            address = self._permitted(address) if address == url else address\n"),
("client","                self._require_public_peer(response, address)\n",""),
("client","                _require_public(ip, address)\n","                pass\n"),
("client","        if size > most_bytes:","        if size > 2 * most_bytes + 10**12:"),
("client","        self._require_size(response, announced_bytes(response) or 0, most_bytes)\n",""),
("client","elapsed_s > self.config.read_timeout_s and","False and"),
("client","wait_s = max(wait_s, failure.retry_after_s)","pass"),
("client","return min(wait_s, self._config.longest_wait_s)","return wait_s"),
("client","        self.failed = 1 if renewed else self.failed + 1","        self.failed = self.failed + 1"),
("client","            self._pace.wait()\n",""),
("client","        with self._downloads:\n            yield","        yield"),
("client","sorted(self.config.mirrors, key=len, reverse=True)","sorted(self.config.mirrors, key=len)"),
("client","""            mounts={f"all""","""            mounts={} and {f"all"""),
("client","for address in (url, self.mirrored(url)):","for address in (self.mirrored(url),):"),
("downloads","        self._furthest = self._have()\n        try","        self._furthest = 0\n        try"),
("downloads","self._furthest = max(self._furthest, done)","self._furthest += len(chunk)"),
("downloads","""        if self._whole_bytes is not None and self._have() < self._whole_bytes:""","""        if False:"""),
("downloads","if start != (have if response.status_code == 206 else 0):","if start is None:"),
("downloads","if start and self._whole_bytes not in (None, whole):","if False:"),
("downloads","if done == 0 and chunk.lstrip()","if False and chunk.lstrip()"),
("downloads","        _require_sound(response, self._url)\n",""),
("downloads","        if not facts.sums:\n            self.discard()\n",""),
("downloads","        if whole != have or have == 0:","        if False:"),
("downloads","        if self._facts.bytes is not None and have >= self._facts.bytes:\n            return","        if False:\n            return"),
("downloads","            fetching.discard()\n            fetching.run()","            fetching.run()"),
("downloads","or found.bytes == 0:",":"),
("downloads","            if self._have() == 0:\n","            if False:\n"),
("downloads","headers[\"If-Range\"] =","headers[\"X-If\"] ="),
("downloads","        self.resumed_from = self.resumed_from if start else 0\n",""),
("librivox","    language = book.language\n","    language = _language(section.get('language'))\n"),
("librivox",".sort(\"language\", by_number, \"section\")",".sort(\"language\", \"audiobook\", \"section\")"),
("librivox","sections.filter(first)","sections"),
("addresses",'if "@" in parts.netloc:','if False:'),
("addresses","if port != _DEFAULT_PORTS[parts.scheme]:","if False:"),
("addresses",'host.endswith(f".{allowed}")','host.endswith(allowed)'),
("addresses",'unquote(parts.path)','parts.path'),
("addresses",' or "/" in name',''),
("catalogue","if page == before:","if False:" if False else "if page == before and offset > 500:"),
("catalogue","if book not in before",""),
("catalogue",'if isinstance(answer, dict) and "error" in answer:','if True:'),
("languages",'"qaa" <= code <= "qtz"','False'),
("languages",'language.is_valid()','True'),
("mirror","path.is_relative_to(self.server.root) and",""),
("mirror",'or self.headers.get("If-Range", etag) != etag',''),
("mirror",'LARGEST_PAGE) or LARGEST_PAGE, LARGEST_PAGE)','LARGEST_PAGE), 10**9)'),
("mirror",'path.read_bytes() if path else b"{}"','path.read_bytes() if path else b""'),
]
for name,a,b in M:
    p=Path("demo/mirror.py") if name=="mirror" else Path(f"speech_mining/sources/{name}.py")
    s=p.read_text()
    if a not in s: print("ABSENT",name,a[:60]); continue
    p.write_text(s.replace(a,b,1))
    tests={"client":["downloads"],"downloads":["downloads"],"librivox":["catalogue"],"addresses":["catalogue"],"catalogue":["catalogue"],"languages":["catalogue"],"mirror":["mirror"]}[name]
    try:
        r=subprocess.run([sys.executable,"-m","pytest","-x","-q","-p","no:cacheprovider","--timeout=20",*[f"tests/test_{t}.py" for t in tests]],capture_output=True,text=True,timeout=100)
        last=[l for l in r.stdout.splitlines() if l.startswith("FAILED")] or [l for l in r.stdout.splitlines() if "ERROR" in l or "imeout" in l][:1]
        print("caught" if r.returncode else "SURVIVED", name, repr(a[:60]), last[:1], flush=True)
    except subprocess.TimeoutExpired: print("caught by time", name, a[:60], flush=True)
    p.write_text(s)
