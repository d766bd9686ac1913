// Names that the theme gives and that differ from the text one sees: the text is the better name.
window.addEventListener("load", () => {
  for (const element of document.querySelectorAll("summary[aria-label], .search-button-field[aria-label], .theme-switch-button[aria-label], .pst-navbar-icon[aria-label], .nav-link[aria-label]")) {
    if (element.textContent.trim()) element.removeAttribute("aria-label");
  }
  // The book's title stands outside every landmark.
  document.querySelector(".sidebar-primary-items__start .navbar-brand")?.parentElement.setAttribute("role", "banner");
});
