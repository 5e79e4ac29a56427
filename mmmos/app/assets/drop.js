const MOST = 50e6;
const input = () => element.querySelector("input");
const say = text => { element.querySelector(".m-sending").textContent = text; };
let sending = Promise.resolve();

async function send(files) {
  const sent = [];
  for (const [index, file] of files.entries()) {
    say(`Reading ${index + 1} of ${files.length}: ${file.name}`);
    if (file.size > MOST) { sent.push({ name: file.name, reason: "too_large" }); continue; }
    try {
      // Gradio has no place for a file of 0 bytes, and a name of its own for what it takes.
      const { path } = await upload(file);
      sent.push({ name: file.name, path });
    } catch { sent.push({ name: file.name, reason: "upload_failed" }); }
  }
  say("");
  if (sent.length) trigger("upload", { files: sent });
}

function take(list) {
  const files = [...list];
  sending = sending.then(() => send(files));
}

element.addEventListener("change", event => { take(event.target.files); input().value = ""; });
const drop = () => element.querySelector(".m-drop");
for (const name of ["dragenter", "dragover"]) {
  element.addEventListener(name, event => { event.preventDefault(); drop().classList.add("m-over"); });
}
element.addEventListener("dragleave", event => { if (!drop().contains(event.relatedTarget)) drop().classList.remove("m-over"); });
element.addEventListener("drop", event => {
  event.preventDefault();
  drop().classList.remove("m-over");
  take(event.dataTransfer.files);
});
