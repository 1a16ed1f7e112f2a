// What the theme leaves out for readers without a mouse or a screen: captions of the menu are headings of a level, and what
// scrolls by itself can be reached by keyboard.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll('[role="heading"]:not([aria-level])').forEach((caption) => caption.setAttribute("aria-level", "2"));
  document.querySelectorAll("pre, .table-wrapper, .output").forEach((place) => place.setAttribute("tabindex", "0"));
});
// A page that is opened from a folder may not fetch others, from which the search would take a few words around what it found.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
