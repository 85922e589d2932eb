// The page: who is there, a form, the job that is watched, and a gallery. No dependencies.
import { $, show, call, sentence } from "./common.js";
import * as form from "./form.js";
import * as job from "./job.js";
import * as gallery from "./gallery.js";
import { limit } from "./pictures.js";

form.start(gallery.seen, job.watch);
job.start(gallery.again);
gallery.start(form.estimate);

// signedIn is whether a session was begun here: its cookie is not for scripts.
function signedIn(now) {
  try {
    if (now !== undefined) localStorage.setItem("signed-in", now ? "yes" : "");
    return localStorage.getItem("signed-in") === "yes";
  } catch { // the browser keeps nothing for this site
    return false;
  }
}

function closed(yes) {
  show($("login"), yes);
  show($("new"), !yes);
  show($("pictures"), !yes);
  show($("logout"), !yes && signedIn());
  if (!yes) return;
  show($("job"), false);
  show($("who"), false);
  $("token").focus();
}
document.addEventListener("token-wanted", () => closed(true));

// open asks for what is here, and so whether a token is wanted.
async function open() {
  try {
    await gallery.refresh();
  } catch (problem) {
    if (problem.status === 401) return;
  }
  closed(false);
  try { limit(await call("/v1/limits")); } catch { /* what is too much the service says */ }
  try {
    const session = await call("/v1/session");
    $("who").textContent = session.name;
    show($("who"), !!session.name);
    gallery.owned(session);
  } catch { /* a service without names */ }
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  try {
    await call("/v1/session", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: $("token").value }) });
    $("token").value = $("login-error").textContent = "";
    signedIn(true);
    await open();
    $("main").focus();
  } catch (problem) {
    $("login-error").textContent = problem.status === 401 ? "That is not the token." : sentence(problem.detail);
  }
});

$("logout").addEventListener("click", async () => {
  try {
    await call("/v1/session", { method: "DELETE" });
    signedIn(false);
    location.reload();
  } catch (problem) {
    $("form-error").textContent = sentence(problem.detail);
  }
});

open();
