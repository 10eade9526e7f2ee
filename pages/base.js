"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const SVG = "http://www.w3.org/2000/svg";

// Text goes in as text nodes only: a name is never read as HTML.
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function labels(indices) {
  return indices.length ? indices.map((k) => data.classes[k]).join(", ") : "none";
}

function section(title, ...children) {
  const node = el("section", {}, el("h2", {}, title), ...children);
  page.append(node);
  return node;
}

const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const show = (value, digits = 4) => (value === null || value === undefined ? "" : value.toFixed(digits));
