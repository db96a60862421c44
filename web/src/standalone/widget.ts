/** Where a notebook's widget begins: the view in a shadow root, so that neither it nor the notebook restyles the other. */
import { mount, unmount } from "svelte";
import { answerFrom } from "../lib/http";
import { startAnew } from "../lib/state.svelte";
import "../style.css";
import { Channel, type Model } from "./channel.svelte";
import Widget from "./Widget.svelte";

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  startAnew();
  const host = document.createElement("div");
  host.dataset["lmSuppressShortcuts"] = "true"; // arrow keys are the view's own, not JupyterLab's commands
  el.append(host);
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  // the page's root element is here the host of the shadow root
  sheet.replaceSync(
    String(model.get("style"))
      .replaceAll(/:root(\[[^\]]*\])/g, ":host($1)")
      .replaceAll(":root", ":host"),
  );
  root.adoptedStyleSheets = [sheet];
  const channel = new Channel(model);
  answerFrom(channel.source);
  const view = mount(Widget, { target: root, props: { channel, host } });
  return () => {
    void unmount(view);
    channel.close();
  };
}

export default { render };
