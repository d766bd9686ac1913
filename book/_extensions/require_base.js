// Modules and fonts that widgets ask for are beside this file's folder, wherever the page is.
requirejs.config({ baseUrl: new URL("../", document.currentScript.src).href });

// Widgets ask MathJax 2 to typeset their labels; version 3 has no Hub.
window.addEventListener("load", () => {
  window.MathJax ??= {};
  window.MathJax.Hub ??= { Queue: ([, , element]) => window.MathJax.typesetPromise?.([element]) };
});
