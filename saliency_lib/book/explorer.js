// Gives every explorer of a page its controls: a slider or a list each, which flip the frames that were drawn beforehand.
"use strict";

function explore(box, number) {
  const { controls, frames } = JSON.parse(box.querySelector("script").textContent);
  const picture = box.querySelector("img");
  const places = controls.map((control) => control.at);
  const panel = document.createElement("div");
  panel.style.cssText = "display: grid; gap: 0.3rem 0.8rem; align-items: center; font-size: 0.85rem; margin-bottom: 0.5rem;"
    + "grid-template-columns: max-content minmax(8rem, 20rem) minmax(2rem, max-content)";

  const show = () => {
    const frame = controls.reduce((index, control, k) => index * control.labels.length + places[k], 0);
    [picture.src, picture.alt] = frames[frame];
  };

  controls.forEach(({ name, labels, slider }, k) => {
    if (labels.length < 2) return;
    const label = document.createElement("label");
    const input = document.createElement(slider ? "input" : "select");
    input.id = `explorer-${number}-${k}`;
    input.style.cssText = slider ? "width: 100%" : "font: inherit; padding: 0.1rem 0.3rem";
    label.htmlFor = input.id;
    label.textContent = name;
    const value = document.createElement("output");
    if (slider) {
      Object.assign(input, { type: "range", min: 0, max: labels.length - 1, step: 1, value: places[k] });
    } else {
      labels.forEach((text, place) => input.add(new Option(text, place, false, place === places[k])));
    }
    const tell = () => {
      value.textContent = slider ? labels[places[k]] : "";
      input.setAttribute("aria-valuetext", labels[places[k]]);
    };
    input.addEventListener("input", () => {
      places[k] = Number(input.value);
      tell();
      show();
    });
    tell();
    panel.append(label, input, value);
  });
  box.prepend(panel);
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".explorer").forEach(explore));
