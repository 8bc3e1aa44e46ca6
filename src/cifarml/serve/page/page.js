// Web page of an endpoint: sends an image and shows the prediction.

const MAX_BYTES = 10 * 1024 * 1024;
const TYPES = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
const MAX_BARS = 10;
const MESSAGES = {
  not_an_image: "This file is not a supported image. Use PNG or JPEG, for example.",
  unsupported_image: "The endpoint cannot decode this kind of image. Save it as PNG or JPEG.",
  damaged_image: "This image is damaged or incomplete. Save it again or choose another image.",
  too_many_pixels: "This image has too many pixels. Resize it first; the network uses only 32×32 pixels.",
  too_large: "This file is too large. The maximum is 10 MB.",
  empty_body: "This file is empty.",
  busy: "The endpoint is busy. Try again in a second.",
  unknown_deployment: "No model is deployed on this endpoint. Deploy one with: cifarml deploy",
};
const UNREACHABLE = "Cannot reach the endpoint. Check that it is running: cifarml endpoint list";

const $ = (id) => document.getElementById(id);
let latest = 0; // number of the latest request; earlier responses are ignored
let shownUrls = [];

const KEY_ITEM = `key of ${location.pathname}`; // a proxy can serve several endpoints at one origin

// Browsers never send the part after #. Remove the key from the URL, so that it is not bookmarked.
function readKey() {
  const fromUrl = new URLSearchParams(location.hash.slice(1)).get("key");
  if (fromUrl) {
    sessionStorage.setItem(KEY_ITEM, fromUrl);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY_ITEM) ?? "";
}

let key = readKey();

class EndpointError extends Error {
  constructor(code, message) {
    super(MESSAGES[code] ?? message);
    this.code = code;
  }
}

async function post(path, file) {
  const type = TYPES.has(file.type) ? file.type : "image/png"; // the endpoint detects the actual format
  const response = await fetch(path, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": type },
    body: file,
  });
  if (response.ok) return response;
  const code = response.status === 413 ? "too_large" : ""; // a proxy responds in HTML
  const { error } = await response.json().catch(() => ({ error: { code, message: UNREACHABLE } }));
  throw new EndpointError(error.code, error.message);
}

async function classify(file) {
  const current = ++latest;
  $("problem").hidden = true;
  $("prediction").setAttribute("aria-busy", "true");
  try {
    if (!file.size) throw new EndpointError("empty_body");
    if (file.size > MAX_BYTES) throw new EndpointError("too_large");
    const started = performance.now();
    const response = await post("score", file);
    const prediction = await response.json();
    const milliseconds = performance.now() - started;
    const seen = await (await post("seen", file)).blob();
    if (current === latest) show(file, seen, prediction, milliseconds, response.headers.get("azureml-model-deployment"));
  } catch (error) {
    if (current === latest) showError(error);
  } finally {
    if (current === latest) $("prediction").removeAttribute("aria-busy");
  }
}

function show(file, seen, prediction, milliseconds, deployment) {
  shownUrls.forEach((url) => URL.revokeObjectURL(url));
  shownUrls = [file, seen].map((blob) => URL.createObjectURL(blob));
  [$("original").src, $("seen").src] = shownUrls;
  $("verdict").textContent = `${prediction.result}, ${percent(prediction.probability)}`;
  const classes = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  $("bars").replaceChildren(...classes.slice(0, MAX_BARS).map(bar));
  const { name, version } = prediction.model;
  const more = classes.length > MAX_BARS ? ` ${classes.length - MAX_BARS} less probable classes are not shown.` : "";
  $("facts").textContent = `${name} version ${version} (deployment ${deployment}) responded in ${milliseconds.toFixed(1)} ms.${more}`;
  $("result").hidden = false;
  $("placeholder").hidden = true;
}

function bar([name, probability]) {
  const item = document.createElement("li");
  const fill = document.createElement("span");
  fill.className = "bar";
  fill.style.width = `${probability * 100}%`;
  item.append(fill, text("name", name), text("probability", percent(probability)));
  item.title = name;
  return item;
}

function text(className, content) {
  const span = document.createElement("span");
  span.className = className;
  span.textContent = content;
  return span;
}

const percent = (probability) => `${(probability * 100).toFixed(1)} %`;

function showError(error) {
  const fromEndpoint = error instanceof EndpointError;
  if (fromEndpoint && error.code === "unauthorized") {
    requestKey(key ? "The key is invalid. It may have been regenerated." : "");
    return;
  }
  $("result").hidden = true;
  $("placeholder").hidden = true;
  showProblem(fromEndpoint ? error.message : UNREACHABLE);
}

function showProblem(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

function requestKey(message) {
  showProblem(message);
  $("key-form").hidden = false;
  $("key").focus();
}

async function showSamples() {
  try {
    const names = await (await fetch("samples")).json();
    $("samples").replaceChildren(...names.map(sample));
  } catch {
    showProblem(UNREACHABLE);
  }
}

function sample(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  const image = document.createElement("img");
  image.src = `samples/${name}.png`;
  image.alt = `Sample image: ${name}`;
  button.append(image);
  button.addEventListener("click", async () => {
    select(button);
    try {
      classify(await (await fetch(image.src)).blob());
    } catch (error) {
      showError(error);
    }
  });
  return button;
}

function select(selected) {
  for (const button of $("samples").children) button.setAttribute("aria-pressed", String(button === selected));
}

function chooseFile(files) {
  if (!files?.length) return;
  select(null);
  classify(files[0]);
}

function requestText() {
  const shownKey = $("with-key").checked && key ? key : "YOUR_KEY";
  const uri = new URL("score", document.baseURI).href;
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
    "response = requests.post(",
    `    "${uri}",`,
    '    data=Path("image.png").read_bytes(),',
    `    headers={"Authorization": "Bearer ${shownKey}", "Content-Type": "image/png"},`,
    "    timeout=10,",
    ")",
    "response.raise_for_status()",
    'print(response.json()["result"])',
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
  chooseFile(event.target.files);
  event.target.value = ""; // lets the user choose the same file again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  chooseFile(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => chooseFile(event.clipboardData.files));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem(KEY_ITEM, key);
  $("key").value = "";
  $("key-form").hidden = true;
  showProblem("");
  showRequest();
});
document.querySelectorAll("[name=language], #with-key").forEach((input) => input.addEventListener("change", showRequest));
$("copy").addEventListener("click", copyRequest);

showRequest();
showSamples();
if (!key) requestKey("");
