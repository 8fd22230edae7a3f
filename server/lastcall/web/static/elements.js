// Elements that several lists are made of.

export function newElement(tag, name, content = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = content;
  return element;
}

/** A button that is only a sign; label: what it does, in words. */
export function iconButton(sign, label, action) {
  const button = newElement("button", "icon", sign);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.addEventListener("click", action);
  return button;
}

/** A link to a conversation. open: opens it in this page; another tab or window is the browser's. */
export function conversationLink(id, open) {
  const link = document.createElement("a");
  link.href = `/c/${id}`;
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open();
  });
  return link;
}
