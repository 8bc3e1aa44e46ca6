// The page of an endpoint: gives it an image, and shows what it says.

const MAX_BYTES = 10 * 1024 * 1024;
const TYPES = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
const SHOWN = 10;
const KIND = {
  not_an_image: "That file isn't an image that the network can read. Try a PNG, JPEG, WebP, GIF or BMP.",
  damaged_image: "That image is damaged or not complete. Can you open it elsewhere? Then save it anew.",
  too_many_pixels: "That image has too many pixels. Make it smaller: the network looks at 32×32 anyway.",
  too_large: "That file is too large: 10 MB are the most.",
  empty_body: "That file is empty.",
  busy: "The endpoint is busy. Try again in a second.",
  unknown_deployment: "No model is live here. Deploy one with: cifarml deploy",
};
const GONE = "The endpoint doesn't answer. Is it still running? See: cifarml endpoint list";

const $ = (id) => document.getElementById(id);
let latest = 0; // of several images given quickly, the last one is shown
let shownUrls = [];

// What stands after # is never sent. It is taken out of the address, so that no bookmark keeps it.
function readKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key") ?? "";
}

let key = readKey();

class Refused extends Error {
  constructor(code, message) {
    super(KIND[code] ?? message);
    this.code = code;
  }
}

async function post(path, file) {
  const type = TYPES.has(file.type) ? file.type : "image/png"; // what it is, the endpoint finds out
  const response = await fetch(path, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": type },
    body: file,
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { code: "", message: GONE } }));
  throw new Refused(error.code, error.message);
}

async function ask(file) {
  const turn = ++latest;
  $("problem").hidden = true;
  document.querySelector(".answer").setAttribute("aria-busy", "true");
  try {
    if (!file.size) throw new Refused("empty_body");
    if (file.size > MAX_BYTES) throw new Refused("too_large");
    const started = performance.now();
    const response = await post("/score", file);
    const answer = await response.json();
    const milliseconds = performance.now() - started;
    const seen = await (await post("/seen", file)).blob();
    if (turn === latest) show(file, seen, answer, milliseconds, response.headers.get("azureml-model-deployment"));
  } catch (error) {
    if (turn === latest) refuse(error);
  } finally {
    if (turn === latest) document.querySelector(".answer").removeAttribute("aria-busy");
  }
}

function show(file, seen, answer, milliseconds, deployment) {
  shownUrls.forEach((url) => URL.revokeObjectURL(url));
  shownUrls = [file, seen].map((blob) => URL.createObjectURL(blob));
  [$("given").src, $("seen").src] = shownUrls;
  $("verdict").textContent = `${answer.result}, ${percent(answer.probability)}`;
  const shares = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  $("bars").replaceChildren(...shares.slice(0, SHOWN).map(bar));
  const { name, version } = answer.model;
  const more = shares.length > SHOWN ? ` ${shares.length - SHOWN} more classes are less probable.` : "";
  $("facts").textContent = `${name} version ${version} (deployment ${deployment}) answered in ${milliseconds.toFixed(1)} ms.${more}`;
  $("found").hidden = false;
  $("nothing").hidden = true;
}

function bar([name, share]) {
  const item = document.createElement("li");
  const fill = document.createElement("span");
  fill.className = "bar";
  fill.style.width = `${share * 100}%`;
  item.append(fill, text("name", name), text("share", percent(share)));
  item.title = name;
  return item;
}

function text(className, content) {
  const span = document.createElement("span");
  span.className = className;
  span.textContent = content;
  return span;
}

const percent = (share) => `${(share * 100).toFixed(1)} %`;

function refuse(error) {
  const refused = error instanceof Refused;
  if (refused && error.code === "unauthorized") {
    lock(key ? "That key is not this endpoint's. It may have been made anew." : "");
    return;
  }
  $("found").hidden = true;
  $("nothing").hidden = true;
  complain(refused ? error.message : GONE);
}

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

function lock(message) {
  complain(message);
  $("door").hidden = false;
  $("key").focus();
}

async function showSamples() {
  try {
    const names = await (await fetch("/samples")).json();
    $("samples").replaceChildren(...names.map(sample));
  } catch {
    complain(GONE);
  }
}

function sample(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  const image = document.createElement("img");
  image.src = `/samples/${name}.png`;
  image.alt = `a drawn ${name}`;
  button.append(image);
  button.addEventListener("click", async () => {
    press(button);
    try {
      ask(await (await fetch(image.src)).blob());
    } catch (error) {
      refuse(error);
    }
  });
  return button;
}

function press(pressed) {
  for (const button of $("samples").children) button.setAttribute("aria-pressed", String(button === pressed));
}

function take(files) {
  if (!files?.length) return;
  press(null);
  ask(files[0]);
}

function requestText() {
  const shownKey = $("with-key").checked && key ? key : "YOUR_KEY";
  const uri = `${location.origin}/score`;
  if (document.querySelector("[name=language]:checked").value === "curl") {
    return [
      `curl ${uri} \\`,
      `  -H 'Authorization: Bearer ${shownKey}' \\`,
      "  -H 'Content-Type: image/png' \\",
      "  --data-binary @image.png",
    ].join("\n");
  }
  return [
    "from pathlib import Path",
    "",
    "import requests",
    "",
    "answer = requests.post(",
    `    "${uri}",`,
    '    data=Path("image.png").read_bytes(),',
    `    headers={"Authorization": "Bearer ${shownKey}", "Content-Type": "image/png"},`,
    "    timeout=10,",
    ")",
    "answer.raise_for_status()",
    'print(answer.json()["result"])',
  ].join("\n");
}

function showRequest() {
  $("code").textContent = requestText();
  $("copied").textContent = "";
}

async function copyRequest() {
  try {
    await navigator.clipboard.writeText(requestText());
    $("copied").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("code"));
    $("copied").textContent = "Press Ctrl+C to copy";
  }
}

$("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem("key", key);
  $("key").value = "";
  $("door").hidden = true;
  complain("");
  showRequest();
});
document.querySelectorAll("[name=language], #with-key").forEach((input) => input.addEventListener("change", showRequest));
$("copy").addEventListener("click", copyRequest);

showRequest();
showSamples();
if (!key) lock("");
