// The scheme that the reader chose last time, before anything is drawn. Files may be denied a memory.
try {
  const kept = localStorage.getItem("meta_icl-scheme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.scheme = kept;
} catch (error) { /* the system's scheme */ }
