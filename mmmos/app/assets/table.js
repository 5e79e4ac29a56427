let column = null, down = true, chosen = null, given = null;

function sort() {
  const body = element.querySelector("tbody");
  if (!body) return;
  if (column !== null) {
    const key = row => row.children[column].dataset.value ?? row.children[column].textContent;
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  }
  for (const button of element.querySelectorAll("thead button")) {
    const own = Number(button.dataset.column) === column;
    if (own) button.closest("th").setAttribute("aria-sort", down ? "descending" : "ascending");
    else button.closest("th").removeAttribute("aria-sort");
  }
}

function mark() {
  for (const row of element.querySelectorAll("tbody tr")) row.classList.toggle("m-chosen", row.dataset.index === chosen);
}

element.addEventListener("click", event => {
  const head = event.target.closest("thead button"), row = event.target.closest("tbody tr");
  if (event.target.closest("[data-clear]")) { column = chosen = given = null; trigger("clear"); }
  if (head) {
    const clicked = Number(head.dataset.column);
    down = clicked === column ? !down : head.dataset.first !== "up";
    column = clicked;
    sort();
  }
  if (row) { chosen = row.dataset.index; mark(); trigger("select", { index: Number(chosen), value: null }); }
});

watch("value", () => {
  // The server names the first file of a batch; what is clicked after that holds until the next batch.
  const named = element.querySelector("table")?.dataset.chosen ?? null;
  if (named !== given) chosen = given = named;
  sort();
  mark();
});
