const page = document.documentElement;
page.dataset.axis ??= "";
page.dataset.domain ??= "0";

function show() {
  const box = element.querySelector(".m-figure");
  const axes = [...element.querySelectorAll(".m-axes button")].map(button => button.dataset.axis);
  const axis = axes.includes(page.dataset.axis) ? page.dataset.axis : axes[0];
  for (const button of element.querySelectorAll(".m-axes button")) button.setAttribute("aria-pressed", button.dataset.axis === axis);
  if (box) for (const curve of box.querySelectorAll(".curve")) curve.classList.toggle("m-shown", curve.dataset.axis === axis);
  const select = element.querySelector(".m-domain");
  if (select) select.value = page.dataset.domain;
  const domain = select ? page.dataset.domain : "0";
  for (const place of element.querySelectorAll(".m-place")) place.hidden = place.dataset.domain !== domain;
  const audio = element.querySelector("audio"), head = element.querySelector(".m-playhead");
  if (audio && !audio.dataset.followed) {
    audio.dataset.followed = "yes";
    const follow = () => {
      head.style.left = `${100 * audio.currentTime / (audio.duration || 1)}%`;
      if (!audio.paused) requestAnimationFrame(follow);
    };
    for (const name of ["play", "seeked", "timeupdate"]) audio.addEventListener(name, follow);
  }
}

element.addEventListener("change", event => {
  if (event.target.matches(".m-domain")) { page.dataset.domain = event.target.value; show(); }
});
element.addEventListener("click", event => {
  const button = event.target.closest(".m-axes button"), card = event.target.closest(".m-card"), box = event.target.closest(".m-box");
  if (button || card) { page.dataset.axis = (button ?? card).dataset.axis; show(); }
  if (box) {
    const { left, width } = box.getBoundingClientRect();
    const audio = element.querySelector("audio");
    if (audio.duration) audio.currentTime = audio.duration * Math.min(Math.max((event.clientX - left) / width, 0), 1);
  }
});
watch("value", show);
