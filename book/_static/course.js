// Where the theme's name for a control differs from the text that one sees, the text is the better name.
window.addEventListener("load", () => {
  for (const control of document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]")) {
    control.removeAttribute("aria-label");
  }
  // A list holds list items; the role that the bibliography gives its entries is deprecated.
  for (const entry of document.querySelectorAll(".citation-list > .citation[role]")) entry.setAttribute("role", "listitem");
  // The book's title stands outside every landmark.
  document.querySelector(".sidebar-primary-items__start .navbar-brand")?.parentElement.setAttribute("role", "banner");
});
