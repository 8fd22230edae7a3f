// The theme that was chosen, before anything is painted. Without a choice, the system's.
try {
  const theme = localStorage.getItem("lastcall.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // the browser keeps nothing for this page
}
