// What a page cannot say by itself: numbers and times in the language and time zone of whoever looks, and that the connection is lost.
"use strict";

(() => {
  const language = navigator.languages;
  const numbers = new Intl.NumberFormat(language);
  const times = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(language, { timeStyle: "medium" });

  function writeTime(element) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) return;
    const written = element.dataset.form === "clock" ? clock.format(moment) : times.format(moment);
    if (element.textContent !== written) element.textContent = written;
    element.title = moment.toISOString();
  }

  function writeNumber(element) {
    const written = numbers.format(Number(element.value));
    if (element.textContent !== written) element.textContent = written;
  }

  function localize(root) {
    root.querySelectorAll("time[datetime]").forEach(writeTime);
    root.querySelectorAll("data[value]").forEach(writeNumber);
  }

  // On a survey's graph, where the conversation beside it is, and where it has been.
  function markSteps() {
    const phone = document.querySelector("[data-step-now]");
    if (!phone) return;
    const been = new Set(phone.dataset.stepsBeen.split(" "));
    document.querySelectorAll(".graph [data-step]").forEach((step) => {
      step.classList.toggle("here", step.dataset.step === phone.dataset.stepNow);
      step.classList.toggle("been", been.has(step.dataset.step));
    });
  }

  function setLost(isLost) {
    const line = document.getElementById("lost");
    if (line) line.hidden = !isLost;
  }

  function finish(root) {
    localize(root);
    markSteps();
  }

  document.addEventListener("DOMContentLoaded", () => finish(document));
  document.addEventListener("htmx:afterSettle", (event) => finish(event.target));
  document.addEventListener("htmx:sseMessage", (event) => finish(event.target));
  document.addEventListener("htmx:sseError", () => setLost(true));
  document.addEventListener("htmx:sseOpen", () => setLost(false));
  document.addEventListener("htmx:sendError", () => setLost(true));
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) setLost(false); });
})();
