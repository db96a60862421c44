/** How the page is built: static files next to the server, nothing inline, nothing from elsewhere. */
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../src/convscope/server/static",
    emptyOutDir: true,
    target: "es2023",
    assetsInlineLimit: 0, // a data: address would be refused by the page's content security policy
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": process.env["CONVSCOPE_SERVER"] ?? "http://127.0.0.1:8765" } },
});
