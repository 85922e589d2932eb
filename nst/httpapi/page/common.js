// What every part of the page uses: elements, words, and calls of the service.

export const $ = (id) => document.getElementById(id);
export const show = (el, yes) => { el.hidden = !yes; };

// make is a new element with properties (not attributes) and children.
export function make(tag, properties = {}, ...children) {
  const el = Object.assign(document.createElement(tag), properties);
  el.append(...children);
  return el;
}

// say tells a screen reader what others see.
export function say(text) { $("live").textContent = text; }

export const sentence = (text) => text ? text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".") : "";

export const words = { queued: "Waiting", running: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled" };

export const when = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// ask fetches; what it throws is a problem document with its status.
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw { detail: "The service does not answer. Is it still running?" };
  }
  if (answer.ok) return answer;
  if (answer.status === 401) document.dispatchEvent(new Event("token-wanted"));
  let problem = { detail: `The service answered ${answer.status}.` };
  try { problem = await answer.json(); } catch { /* not ours */ }
  problem.status = answer.status;
  throw problem;
}

export async function call(path, options) {
  const answer = await ask(path, options);
  return answer.status === 204 ? null : answer.json();
}

// send posts a form, and tells what part of it is sent: a clip takes its time.
export function send(path, form, tell) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.upload.onprogress = (e) => { if (e.lengthComputable) tell(e.loaded / e.total); };
    request.onerror = () => failed({ detail: "The service does not answer, or did not want all of what was sent." });
    request.onload = () => {
      let answer = { detail: `The service answered ${request.status}.` };
      try { answer = JSON.parse(request.response); } catch { /* not ours */ }
      if (request.status < 300) return done(answer);
      if (request.status === 401) document.dispatchEvent(new Event("token-wanted"));
      failed({ ...answer, status: request.status });
    };
    request.send(form);
  });
}

export const bytes = (n) => n < 1e9 ? `${Math.max(1, Math.round(n / 1e6))} MB` : `${(n / 1e9).toFixed(1)} GB`;

export const blob = async (path) => (await ask(path)).blob();
