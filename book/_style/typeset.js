// ipywidgets asks for its formulas in the words of MathJax 2; the pages have MathJax 3.
window.addEventListener("load", () => {
  if (window.MathJax && !MathJax.Hub) {
    MathJax.Hub = { Queue: ([, , node]) => MathJax.typesetPromise?.(node ? [node] : undefined) };
  }
});
